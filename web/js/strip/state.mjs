// What a strip remembers while its node is made anew, as after an undo.

/** Strips that are remembered. */
const LIMIT = 50;

/**
 * @typedef {object} StripState
 * @property {number} selected index of a shot
 * @property {number} zoom pixels per block; 0 fits the film into the view
 * @property {number} scroll
 * @property {boolean} focused whether the list of shots has the focus
 * @property {import("./reading.mjs").Outline} [outline] the last one that could be read
 * @property {string} [script] its text
 * @property {Map<number, string>} stills
 * @property {Map<number, import("./cards.mjs").ShotState>} states
 */

/** @type {Map<string, StripState>} */
const states = new Map();

/**
 * The state of the strip of a node.
 *
 * @param {string} key workflow and place of the node in it
 * @param {StripState} unknown the state of a node that is not remembered
 * @returns {StripState}
 */
export function stateOf(key, unknown) {
  const state = states.get(key) ?? unknown;
  states.delete(key);
  states.set(key, state);
  for (const oldest of states.keys()) {
    if (states.size <= LIMIT) break;
    states.delete(oldest);
  }
  return state;
}

/** @returns {StripState} */
export function fresh() {
  return { selected: 0, zoom: 0, scroll: 0, focused: false, stills: new Map(), states: new Map() };
}
