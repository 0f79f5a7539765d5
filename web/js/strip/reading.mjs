// The server's reading of a script: one request at a time, always of the newest text.

/**
 * @typedef {{line: number, column: number, end: number}} Place
 * @typedef {Place & {text: string}} Fix
 * @typedef {Place & {message: string, end_line: number, fix: Fix | null}} Note
 * @typedef {{what: string, remedy: string, line: number, column: number, fix: Fix | null}} Mistake
 *
 * @typedef {object} Shot
 * @property {number} number
 * @property {string} text as written
 * @property {string} prompt
 * @property {string} asked the length as written, or ""
 * @property {number} start in seconds
 * @property {number} seconds
 * @property {number} blocks
 * @property {number} frames
 * @property {boolean} continues
 * @property {number | null} seed
 * @property {Place} header
 * @property {Place[]} texts
 *
 * @typedef {object} Outline
 * @property {number} seconds
 * @property {number} frames
 * @property {number} blocks
 * @property {number} block_seconds
 * @property {string} style
 * @property {[string, string][]} names
 * @property {Shot[]} shots
 * @property {Note[]} notes
 * @property {Note[]} warnings
 * @property {string[]} plan_notes
 *
 * @typedef {{script: string, fps: number, default_seconds: number, cast: [string, string][]}} Question
 * @typedef {{outline?: Outline, error?: Mistake, script?: string, selected?: number, notes?: string[]}} Answer
 */

/** Asks for readings. A text that comes while the server reads one waits; only the newest of them is asked for. */
export class Reader {
  /** @type {Question | undefined} */ #asked;
  /** @type {Question | undefined} */ #waiting;
  #busy = false;

  /**
   * @param {(question: Question) => Promise<Answer>} send
   * @param {(answer: Answer, question: Question) => void} show
   */
  constructor(send, show) {
    this.send = send;
    this.show = show;
  }

  /** Marks a text as read. @param {Question} question */
  know(question) {
    this.#asked = question;
    this.#waiting = undefined;
  }

  /** Asks for the reading of a text, unless it was the last one. @param {Question} question */
  async ask(question) {
    if (!this.#waiting && isSame(question, this.#asked)) return;
    this.#waiting = question;
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#waiting) {
        const next = this.#waiting;
        this.#asked = next;
        this.#waiting = undefined;
        const answer = await this.send(next);
        if (isSame(this.#asked, next)) this.show(answer, next);
      }
    } finally {
      this.#busy = false;
    }
  }
}

/** @param {Question | undefined} a @param {Question | undefined} b */
function isSame(a, b) {
  const numbers = a?.fps === b?.fps && a?.default_seconds === b?.default_seconds;
  return numbers && a?.script === b?.script && JSON.stringify(a?.cast) === JSON.stringify(b?.cast);
}

/** Lines of a text as the reader counts them. @param {string} text */
function linesOf(text) {
  return text.replace(/^\ufeff/, "").split(/\r\n|\r|\n/);
}

/**
 * Offset in a text of a line and column, both counted from 1. Columns count characters, not UTF-16 units.
 *
 * @param {string} text
 * @param {number} line
 * @param {number} column
 */
export function offsetOf(text, line, column) {
  const lines = linesOf(text);
  const before = lines.slice(0, line - 1).reduce((sum, row) => sum + row.length + 1, 0);
  const row = [...(lines[line - 1] ?? "")].slice(0, column - 1);
  return before + row.join("").length;
}

/**
 * A text with a remedy applied.
 *
 * @param {string} text
 * @param {Fix} fix
 */
export function applyFix(text, fix) {
  const lines = linesOf(text);
  const row = [...lines[fix.line - 1]];
  lines[fix.line - 1] = [...row.slice(0, fix.column - 1), fix.text, ...row.slice(fix.end - 1)].join("");
  return lines.join("\n");
}

/**
 * Number of the shot that a line belongs to: the last one that begins on it or above. 0: the lines in front of shots.
 *
 * @param {Outline} outline
 * @param {number} line
 */
export function shotAt(outline, line) {
  return outline.shots.filter(({ header }) => header.line <= line).at(-1)?.number ?? 0;
}
