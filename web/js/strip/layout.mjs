// Where the cards of a strip are: widths by length, gaps at cuts, which cards can be seen.

/** Narrowest card and the gap that a cut leaves, in pixels. */
export const LEAST = 58;
export const GAP = 9;
export const MAX_PER_BLOCK = 160;

/**
 * @typedef {object} Layout lefts and widths of the cards, and the width of all, in pixels
 * @property {number[]} lefts
 * @property {number[]} widths
 * @property {number} width
 */

/**
 * @param {{blocks: number, continues: boolean}[]} shots
 * @param {number} perBlock pixels
 * @returns {Layout}
 */
export function layOut(shots, perBlock) {
  /** @type {number[]} */ const lefts = [];
  /** @type {number[]} */ const widths = [];
  let at = 0;
  for (const [index, { blocks, continues }] of shots.entries()) {
    if (index && !continues) at += GAP;
    const width = Math.max(LEAST, Math.round(blocks * perBlock));
    lefts.push(at);
    widths.push(width);
    at += width;
  }
  return { lefts, widths, width: at };
}

/**
 * Pixels per block at which a film fills a width, or the fewest at which its cards can be read.
 *
 * @param {{blocks: number, continues: boolean}[]} shots
 * @param {number} width
 */
export function fit(shots, width) {
  const blocks = shots.reduce((sum, shot) => sum + shot.blocks, 0);
  const gaps = shots.filter(({ continues }, index) => index && !continues).length * GAP;
  if (!blocks) return LEAST;
  let perBlock = Math.min(MAX_PER_BLOCK, (width - gaps) / blocks);
  // Cards that have the least width take room from the others.
  for (let round = 0; round < 8 && layOut(shots, perBlock).width > width; round++) {
    const wide = shots.filter((shot) => shot.blocks * perBlock > LEAST);
    const rest = width - gaps - (shots.length - wide.length) * LEAST;
    const next = rest / wide.reduce((sum, shot) => sum + shot.blocks, 0);
    if (!wide.length || !(next < perBlock)) break;
    perBlock = Math.max(next, 0);
  }
  const least = LEAST / Math.max(1, Math.min(...shots.map((shot) => shot.blocks)));
  return Math.max(Math.floor(perBlock * 10) / 10, Math.min(least, 20));
}

/**
 * First and last index (not included) of the cards between two positions.
 *
 * @param {Layout} layout
 * @param {number} left
 * @param {number} right
 */
export function visible({ lefts, widths }, left, right) {
  let first = 0;
  while (first < lefts.length && lefts[first] + widths[first] < left) first++;
  let last = first;
  while (last < lefts.length && lefts[last] <= right) last++;
  return [first, last];
}

/**
 * The index that a card would have if it were dropped at a position.
 *
 * @param {Layout} layout
 * @param {number} index of the card that is dragged
 * @param {number} x of its middle
 */
export function dropIndex({ lefts, widths }, index, x) {
  const before = lefts.filter((left, other) => other !== index && left + widths[other] / 2 < x);
  return before.length;
}

/**
 * Length in blocks of a card whose edge was dragged.
 *
 * @param {number} blocks before
 * @param {number} distance in pixels
 * @param {number} perBlock
 */
export function stretched(blocks, distance, perBlock) {
  return Math.max(1, blocks + Math.round(distance / perBlock));
}

/**
 * Scroll position that shows a card whole.
 *
 * @param {Layout} layout
 * @param {number} index
 * @param {number} scroll
 * @param {number} width of the view
 */
export function scrollTo({ lefts, widths }, index, scroll, width) {
  const [left, right] = [lefts[index], lefts[index] + widths[index]];
  if (left < scroll) return left;
  return right > scroll + width ? Math.min(left, right - width) : scroll;
}
