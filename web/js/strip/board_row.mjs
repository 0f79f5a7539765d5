// What stands above the remarks: what a run would make, and how far the storyboard is.
import { icon, make } from "../dom.mjs";

/**
 * @typedef {object} BoardActions
 * @property {() => void} acceptAll
 * @property {() => void} makeFilm
 */

/**
 * The row, or undefined if there is nothing to say.
 *
 * @param {string} line what a run would make, or how far a storyboard is that is being made
 * @param {Map<number, import("./cards.mjs").ShotState>} states of the shots
 * @param {boolean} running whether a storyboard or a film is being made
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 * @param {BoardActions} actions
 */
export function boardRow(line, states, running, word, actions) {
  const stills = [...states.values()].filter(({ state }) => state === "board");
  if (running || !stills.length) return line ? row("pi-play", make("span", {}, line)) : undefined;
  const accepted = stills.filter((still) => still.accepted).length;
  const text = [word("strip_board_accepted_of", { accepted, count: stills.length }), line].filter(Boolean).join(" · ");
  const buttons = [
    accepted < stills.length ? button("pi-thumbs-up", word("strip_accept_all"), "", actions.acceptAll) : undefined,
    button("pi-play", word("strip_make_film"), " ll-primary", actions.makeFilm),
  ];
  return row("pi-th-large", make("span", {}, text), ...buttons);
}

/** @param {string} sign @param {(HTMLElement | undefined)[]} content */
function row(sign, ...content) {
  return make("li", { className: "ll-plan" }, icon(sign), ...content);
}

/** @param {string} sign @param {string} text @param {string} kind @param {() => void} onclick */
function button(sign, text, kind, onclick) {
  return make("button", { type: "button", className: `ll-fix${kind}`, onclick }, icon(sign), text);
}
