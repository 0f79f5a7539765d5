// The first row of a strip: style, named heroes, the film's length, zoom.
import { icon, iconButton, isStale, make } from "../dom.mjs";

/**
 * @typedef {{label: string, send: () => unknown}} Live
 *
 * @typedef {object} HeadActions
 * @property {() => void} style
 * @property {(name: string) => void} name edits a name, or defines one if it is ""
 * @property {(factor: number) => void} zoom 0 fits the film into the view
 * @property {() => void} send the text to the film that is made
 * @property {{running: boolean, press: () => void}} board makes a storyboard, or cancels it
 */

/**
 * @param {HTMLElement} head
 * @param {import("./reading.mjs").Outline | undefined} outline
 * @param {Live | undefined} live the offer to send the text to the film that is made
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 * @param {HeadActions} actions
 */
export function drawHead(head, outline, live, word, actions) {
  const facts = [outline?.style, outline?.names, outline?.seconds, outline?.shots.length, outline?.plan_notes, live?.label, word("strip_zoom_fit")];
  if (!isStale(head, [...facts, actions.board.running])) return;
  const total = outline
    ? word(outline.shots.length === 1 ? "strip_total_one" : "strip_total", {
        seconds: outline.seconds.toFixed(1),
        shots: outline.shots.length,
        blocks: outline.blocks,
      })
    : "";
  const chips = outline
    ? [
        chip("pi-palette", outline.style || word("strip_no_style"), word("strip_style"), actions.style, !outline.style),
        ...outline.names.map(([name, text]) =>
          chip("pi-user", text, `{${name}}`, () => actions.name(name), false, name),
        ),
        iconButton("pi-user-plus", word("strip_add_name"), () => actions.name("")),
      ]
    : [];
  const focused = head.contains(document.activeElement) && document.activeElement?.classList.contains("ll-storyboard");
  const board = boardButton(actions.board, word);
  head.replaceChildren(
    make("div", { className: "ll-chips" }, ...chips),
    make("span", { className: "ll-total", title: outline?.plan_notes.join("\n") ?? "" }, total),
    ...(live ? [make("button", { type: "button", className: "ll-live", onclick: actions.send }, icon("pi-bolt"), live.label)] : []),
    board,
    make(
      "div",
      { className: "ll-zoom" },
      iconButton("pi-search-minus", word("strip_zoom_out"), () => actions.zoom(1 / 1.4)),
      iconButton("pi-arrows-h", word("strip_zoom_fit"), () => actions.zoom(0)),
      iconButton("pi-search-plus", word("strip_zoom_in"), () => actions.zoom(1.4)),
    ),
  );
  if (focused) board.focus({ preventScroll: true });
}

/** @param {HeadActions["board"]} board @param {(key: string) => string} word */
function boardButton({ running, press }, word) {
  const label = word(running ? "strip_board_cancel" : "strip_board_make");
  return make(
    "button",
    { type: "button", className: running ? "ll-storyboard ll-running" : "ll-storyboard", title: label, "aria-label": label, onclick: press },
    icon(running ? "pi-times" : "pi-th-large"),
    make("span", {}, word(running ? "strip_cancel" : "strip_storyboard")),
  );
}

/**
 * @param {string} sign
 * @param {string} text
 * @param {string} label
 * @param {() => void} onclick
 * @param {boolean} empty
 * @param {string} [name]
 */
function chip(sign, text, label, onclick, empty, name) {
  const title = empty ? text : `${label}: ${text}`;
  return make(
    "button",
    { type: "button", className: empty ? "ll-chip ll-empty" : "ll-chip", title, "aria-label": title, onclick },
    icon(sign),
    ...(name ? [make("b", {}, name), " "] : []),
    make("span", {}, text),
  );
}
