// What the reader remarks on a script, by line, each with its remedy as a button where there is one.
import { icon, make } from "../dom.mjs";
import { shotAt } from "./reading.mjs";

/**
 * @typedef {object} Row
 * @property {"error" | "warning" | "note"} kind
 * @property {number} line 0 for the film as a whole
 * @property {number} column
 * @property {number} end 0 for the end of the line
 * @property {string} text
 * @property {import("./reading.mjs").Fix | null} fix
 */

/**
 * The rows to show: the error, then warnings, then notes.
 *
 * @param {import("./reading.mjs").Outline | undefined} outline
 * @param {import("./reading.mjs").Mistake | undefined} mistake
 * @returns {Row[]}
 */
export function rowsOf(outline, mistake) {
  if (mistake) {
    const text = mistake.remedy ? `${mistake.what}: ${mistake.remedy}` : mistake.what;
    return [{ kind: "error", text, end: 0, line: mistake.line, column: mistake.column, fix: mistake.fix }];
  }
  if (!outline) return [];
  /** @param {import("./reading.mjs").Note} note @param {"warning" | "note"} kind @returns {Row} */
  const row = ({ line, column, end, message, fix }, kind) => ({ kind, line, column, end, text: message, fix });
  return [
    // Of several on a line, first the one that can be mended.
    ...[...outline.warnings].sort((a, b) => a.line - b.line || Number(!a.fix) - Number(!b.fix)).map((note) => row(note, "warning")),
    ...outline.notes.filter(({ message }) => !message.endsWith("it is a comment")).map((note) => row(note, "note")),
    ...outline.plan_notes.filter((text) => !isRounding(text)).map(plain),
  ];
}

/** @param {string} text @returns {Row} */
const plain = (text) => ({ kind: "note", line: 0, column: 0, end: 0, text, fix: null });

/** Whether a note of the plan says that a length became whole blocks. @param {string} text */
const isRounding = (text) => / becomes \d+ block/.test(text);

/** The lengths that were rounded, which are shown on demand. @param {import("./reading.mjs").Outline | undefined} outline */
export function roundingsOf(outline) {
  return outline?.plan_notes.filter(isRounding) ?? [];
}

/** Numbers of the shots with warnings. @param {import("./reading.mjs").Outline} outline */
export function warnedShots(outline) {
  return new Set(outline.warnings.map(({ line }) => shotAt(outline, line)));
}

const ICONS = { error: "pi-times-circle", warning: "pi-exclamation-triangle", note: "pi-info-circle" };

/**
 * Draws the rows into a list.
 *
 * @param {HTMLElement} list
 * @param {Row[]} rows
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 * @param {(row: Row) => void} show selects the words in the script
 * @param {(fix: import("./reading.mjs").Fix) => void} mend
 */
export function drawRows(list, rows, word, show, mend) {
  list.replaceChildren(
    ...rows.map((row) => {
      const place = row.line
        ? make(
            "button",
            { type: "button", className: "ll-line", title: word("strip_show_line"), onclick: () => show(row) },
            word("strip_line", { line: row.line }),
          )
        : undefined;
      const { fix } = row;
      const label = fix && fixLabel(fix.text, word);
      const button = fix
        ? make("button", { type: "button", className: "ll-fix", onclick: () => mend(fix) }, icon("pi-wrench"), label ?? "")
        : undefined;
      return make("li", { className: `ll-${row.kind}` }, icon(ICONS[row.kind]), place, make("span", {}, row.text), button);
    }),
  );
}

/**
 * A row that opens to show the roundings.
 *
 * @param {string[]} roundings
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 * @param {boolean} open
 */
export function roundingsRow(roundings, word, open) {
  const label = word(roundings.length === 1 ? "strip_rounded_one" : "strip_rounded", { count: roundings.length });
  const lines = roundings.map((text) => make("div", {}, text));
  return make("li", { className: "ll-note" }, make("details", { open }, make("summary", {}, label), ...lines));
}

/** @param {string} text @param {(key: string, values?: Record<string, string | number>) => string} word */
function fixLabel(text, word) {
  const written = text.trim();
  if (text.startsWith("\n")) return word("strip_fix_new_line");
  if (!written) return word("strip_fix_remove");
  return word("strip_fix_write", { text: written.length > 28 ? `${written.slice(0, 27)}…` : written });
}
