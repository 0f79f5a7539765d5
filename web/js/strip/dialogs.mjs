// The forms over a strip: the text or the seed of a shot, the style, a name; and the versions of a shot.
import { openEditor } from "./editor.mjs";
import { Versions } from "./versions.mjs";

export class Dialogs {
  /** @type {Versions | undefined} */ #versions;

  /** @param {import("./strip.mjs").Strip} strip */
  constructor(strip) {
    this.strip = strip;
  }

  /** @param {import("./reading.mjs").Shot} shot */
  text({ number, text }) {
    const { word } = this.strip;
    const field = { name: "text", label: word("strip_text"), value: text };
    this.#open(word("strip_shot", { shot: number }), [field], ({ text: value }) =>
      value === text ? Promise.resolve("") : this.strip.edits.make({ kind: "text", shot: number, text: value }),
    );
  }

  /** @param {import("./reading.mjs").Shot} shot */
  seed({ number, seed }) {
    const { word } = this.strip;
    const field = { name: "seed", label: word("strip_seed_field"), value: String(seed ?? ""), oneLine: true, pattern: "[0-9]*" };
    this.#open(word("strip_shot", { shot: number }), [field], ({ seed: value }) =>
      this.strip.edits.make({ kind: "seed", shot: number, seed: value.trim() ? Number(value) : null }),
    );
  }

  style() {
    const { state, word } = this.strip;
    const field = { name: "text", label: word("strip_style_field"), value: state.outline?.style ?? "" };
    this.#open(word("strip_style"), [field], ({ text }) => this.strip.edits.make({ kind: "style", text }));
  }

  /** @param {string} name "" defines one */
  name(name) {
    const { state, word } = this.strip;
    const text = state.outline?.names.find(([key]) => key === name)?.[1] ?? "";
    const field = { name: "text", label: word("strip_name_field"), value: text };
    if (name) return this.#open(`{${name}}`, [field], ({ text }) => this.strip.edits.make({ kind: "name", name, text }));
    const key = { name: "name", label: word("strip_name"), value: "", oneLine: true, pattern: "[^\\s{}:]+" };
    this.#open(word("strip_add_name"), [field, key], (values) => this.strip.edits.make({ kind: "name", ...values }));
  }

  /** The versions of a shot, to choose one or to make more. @param {import("../takes/routes.mjs").TakeShot} shot */
  versions(shot) {
    const { element, script, word, film } = this.strip;
    if (this.#isOpen) return;
    this.#versions = new Versions(element, shot, film.versions, script.url, word, {
      choose: (version) => void this.strip.edits.choose(shot.shot, version),
      make: (count) => film.onVersions(shot.shot, count),
      stop: () => film.onStop(),
      closed: () => {
        this.#versions = undefined;
        this.#closed();
      },
    });
  }

  /** Shows the take as it is now, where its versions are open. @param {import("../takes/routes.mjs").Take | undefined} take */
  taken(take) {
    const shot = this.#versions && take?.shots[this.#versions.number - 1];
    if (shot) this.#versions?.show(shot, this.strip.film.versions);
  }

  get #isOpen() {
    return this.strip.element.querySelector(".ll-editor") !== null;
  }

  #closed() {
    this.strip.reel.list.focus({ preventScroll: true });
  }

  /** @param {string} title @param {import("./editor.mjs").Field[]} fields @param {(values: Record<string, string>) => Promise<string>} save */
  #open(title, fields, save) {
    if (!this.#isOpen) openEditor(this.strip.element, title, fields, this.strip.word, save, () => this.#closed());
  }
}
