// What stands beside the cards: what a run would make, and what the reader remarks on the script, with its remedies.
import { make } from "../dom.mjs";
import { boardRow } from "./board_row.mjs";
import { applyFix, offsetOf } from "./reading.mjs";
import { drawRows, roundingsOf, roundingsRow, rowsOf } from "./warnings.mjs";

export class Remarks {
  /** @param {import("./strip.mjs").Strip} strip */
  constructor(strip) {
    this.strip = strip;
    this.rows = make("ul", { className: "ll-rows" });
    this.element = make("div", { className: "ll-notes", role: "region", tabIndex: 0, "aria-label": strip.word("strip_remarks") }, this.rows);
  }

  /** @param {import("./reading.mjs").Mistake | undefined} mistake */
  draw(mistake) {
    const { word, state, film } = this.strip;
    const rows = rowsOf(state.outline, mistake);
    const open = Boolean(this.rows.querySelector("details[open]"));
    drawRows(this.rows, rows, word, (row) => this.#showWords(row), (fix) => this.#mend(fix));
    const roundings = mistake ? [] : roundingsOf(state.outline);
    if (roundings.length) this.rows.append(roundingsRow(roundings, word, open));
    if (!rows.length) this.rows.append(make("li", { className: "ll-hint" }, word("strip_hint")));
    const row = boardRow(film.line, state.states, film.running, word, {
      acceptAll: () => film.onAccept(null, true),
      makeFilm: () => film.onFilm(),
    });
    if (row && !mistake) this.rows.prepend(row);
  }

  /** Shows in place of all remarks that the script comes over a wire. */
  drawWired() {
    this.rows.replaceChildren(make("li", { className: "ll-hint" }, this.strip.word("strip_wired")));
  }

  /** Shows a line above the others. @param {string} text @param {"error" | "note"} kind */
  say(text, kind) {
    this.rows.prepend(make("li", { className: `ll-${kind}` }, make("span", { role: "status" }, text)));
  }

  /** @param {import("./reading.mjs").Fix} fix */
  #mend(fix) {
    const { script } = this.strip;
    script.write(applyFix(script.read().script, fix));
    this.strip.changed();
    this.element.focus({ preventScroll: true });
  }

  /** Selects the words of a remark in the text. @param {import("./warnings.mjs").Row} row */
  #showWords({ line, column, end }) {
    const { script } = this.strip;
    const text = script.read().script;
    const from = offsetOf(text, line, column);
    script.select(from, end > column ? offsetOf(text, line, end) : offsetOf(text, line, Infinity));
  }
}
