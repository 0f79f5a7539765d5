// Dragging cards to another place, and their right edges to another length.
import { dropIndex, stretched } from "./layout.mjs";

/** Pixels that a pointer moves before a click becomes a drag, and in which the reel scrolls at its ends. */
const THRESHOLD = 4;
const SCROLL_ZONE = 28;

/**
 * @typedef {object} Dragged what a strip offers to a drag
 * @property {() => import("./layout.mjs").Layout} layout
 * @property {() => number} perBlock
 * @property {(index: number) => number} blocks
 * @property {(index: number) => HTMLElement | undefined} card
 * @property {(index: number) => void} select
 * @property {(index: number, blocks: number) => void} preview shows a length before it is set
 * @property {(index: number, to: number) => void} move
 * @property {(index: number, blocks: number) => void} stretch
 * @property {(index: number) => void} open
 */

/**
 * Lets the cards in a list be dragged.
 *
 * @param {HTMLElement} list that scrolls
 * @param {HTMLElement} marker that shows where a card would be put
 * @param {Dragged} strip
 */
export function draggable(list, marker, strip) {
  /** @type {{index: number, edge: boolean, x: number, scroll: number, moving: boolean, to: number} | undefined} */
  let drag;

  /** Distance in pixels of the list's own scale, which the canvas zooms. @param {PointerEvent} event */
  const distance = (event) => {
    if (!drag) return 0;
    const scale = list.getBoundingClientRect().width / list.offsetWidth || 1;
    return (event.clientX - drag.x) / scale + list.scrollLeft - drag.scroll;
  };
  const end = () => {
    const card = drag && strip.card(drag.index);
    card?.classList.remove("ll-dragged");
    if (card) card.style.transform = "";
    marker.hidden = true;
    drag = undefined;
  };

  list.addEventListener("pointerdown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    const card = /** @type {HTMLElement | null} */ (target.closest("[data-index]"));
    if (!card || event.button) return; // the middle button moves the canvas
    const index = Number(card.dataset.index);
    strip.select(index);
    const edge = target.classList.contains("ll-edge");
    drag = { index, edge, x: event.clientX, scroll: list.scrollLeft, moving: false, to: index };
    list.setPointerCapture(event.pointerId);
  });

  list.addEventListener("pointermove", (event) => {
    if (!drag) return;
    event.stopPropagation();
    const moved = distance(event);
    if (!drag.moving && Math.abs(moved) < THRESHOLD) return;
    drag.moving = true;
    scrollAtEnds(list, event.clientX);
    if (drag.edge) return strip.preview(drag.index, stretched(strip.blocks(drag.index), moved, strip.perBlock()));
    const { lefts, widths } = strip.layout();
    const card = strip.card(drag.index);
    card?.classList.add("ll-dragged");
    if (card) card.style.transform = `translateX(${moved}px)`;
    drag.to = dropIndex(strip.layout(), drag.index, lefts[drag.index] + widths[drag.index] / 2 + moved);
    const after = drag.to > drag.index;
    marker.style.left = `${lefts[drag.to] + (after ? widths[drag.to] + 3 : -6)}px`;
    marker.hidden = drag.to === drag.index;
  });

  list.addEventListener("pointerup", (event) => {
    event.stopPropagation();
    if (!drag) return;
    const { index, edge, moving, to } = drag;
    const moved = distance(event);
    end();
    if (!moving) return;
    if (edge) strip.stretch(index, stretched(strip.blocks(index), moved, strip.perBlock()));
    else if (to !== index) strip.move(index, to);
  });

  list.addEventListener("pointercancel", end);
  list.addEventListener("dblclick", (event) => {
    event.stopPropagation();
    const card = /** @type {HTMLElement | null} */ (/** @type {HTMLElement} */ (event.target).closest("[data-index]"));
    if (card) strip.open(Number(card.dataset.index));
  });
}

/** @param {HTMLElement} list @param {number} x of the pointer */
function scrollAtEnds(list, x) {
  const { left, right } = list.getBoundingClientRect();
  if (x < left + SCROLL_ZONE) list.scrollLeft -= 12;
  if (x > right - SCROLL_ZONE) list.scrollLeft += 12;
}
