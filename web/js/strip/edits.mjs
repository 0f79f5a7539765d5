// The edits of a script that its strip makes, through the server: one after the other, each a step of undo.
import { ask } from "./script.mjs";

/** @typedef {{kind: string} & Record<string, unknown>} Edit as `/longlive/script/edit` takes it */

export class Edits {
  /** @type {Promise<unknown>} */ #last = Promise.resolve();

  /** @param {import("./strip.mjs").Strip} strip */
  constructor(strip) {
    this.strip = strip;
  }

  /**
   * Makes edits in the newest text as one step of undo, after the edits before them. Returns what is wrong, or "".
   *
   * @param {...Edit} edits
   * @returns {Promise<string>}
   */
  make(...edits) {
    const done = this.#last.then(() => this.#make(edits));
    this.#last = done;
    return done;
  }

  /** @param {Edit[]} edits */
  async #make(edits) {
    const { strip } = this;
    const before = strip.script.read();
    /** @type {import("./reading.mjs").Answer} */
    let answer = { script: before.script };
    for (const edit of edits) {
      if (answer.error) break;
      answer = await ask(strip.script, "/edit", { ...before, script: answer.script, edit });
    }
    if (strip.disposed || strip.script.read().script !== before.script) return strip.word("strip_changed");
    const { script, outline, error, selected = 1, notes = [] } = answer;
    if (error || script === undefined || !outline) {
      const text = error ? [error.what, error.remedy].filter(Boolean).join(": ") : "";
      strip.say(text);
      return text;
    }
    strip.edited({ ...before, script }, outline, "shot" in edits[0] ? selected - 1 : strip.state.selected);
    if (notes.length) strip.say(notes.join("; "), "note");
    return "";
  }

  /** Gives a shot a new seed; of a shot on the storyboard, the new still is made at once. @param {number} number */
  async reroll(number) {
    const { state } = this.strip;
    const seed = state.outline?.shots[number - 1]?.seed ?? null;
    const onBoard = state.states.get(number)?.state === "board";
    const error = await this.make({ kind: "seed", shot: number, seed: freshSeed(seed) });
    if (!error && onBoard) this.strip.film.onStill();
    return error;
  }

  /**
   * Gives a shot the text and the seed of a version: a run then takes its blocks from the take.
   *
   * @param {number} number
   * @param {import("../takes/routes.mjs").Version} version
   */
  choose(number, { text, seed }) {
    return this.make({ kind: "text", shot: number, text }, { kind: "seed", shot: number, seed });
  }
}

/** A seed that the shot does not have. @param {number | null} seed */
function freshSeed(seed) {
  const fresh = Math.floor(Math.random() * 1_000_000);
  return fresh === seed ? fresh + 1 : fresh;
}
