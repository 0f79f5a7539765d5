// The forms over a strip: the text or the seed of a shot, the style, a name; and the versions of a shot.
import { openEditor } from "./editor.mjs";
import { openVersions } from "./versions.mjs";

export class Dialogs {
  /** @param {import("./strip.mjs").Strip} strip */
  constructor(strip) {
    this.strip = strip;
  }

  /** @param {import("./reading.mjs").Shot} shot */
  text({ number, text }) {
    const { word } = this.strip;
    const field = { name: "text", label: word("strip_text"), value: text };
    this.#open(word("strip_shot", { shot: number }), [field], ({ text: value }) =>
      value === text ? Promise.resolve("") : this.strip.edit({ kind: "text", shot: number, text: value }),
    );
  }

  /** @param {import("./reading.mjs").Shot} shot */
  seed({ number, seed }) {
    const { word } = this.strip;
    const field = { name: "seed", label: word("strip_seed_field"), value: String(seed ?? ""), oneLine: true, pattern: "[0-9]*" };
    this.#open(word("strip_shot", { shot: number }), [field], ({ seed: value }) =>
      this.strip.edit({ kind: "seed", shot: number, seed: value.trim() ? Number(value) : null }),
    );
  }

  style() {
    const { state, word } = this.strip;
    const field = { name: "text", label: word("strip_style_field"), value: state.outline?.style ?? "" };
    this.#open(word("strip_style"), [field], ({ text }) => this.strip.edit({ kind: "style", text }));
  }

  /** @param {string} name "" defines one */
  name(name) {
    const { state, word } = this.strip;
    const text = state.outline?.names.find(([key]) => key === name)?.[1] ?? "";
    const field = { name: "text", label: word("strip_name_field"), value: text };
    if (name) return this.#open(`{${name}}`, [field], ({ text }) => this.strip.edit({ kind: "name", name, text }));
    const key = { name: "name", label: word("strip_name"), value: "", oneLine: true, pattern: "[^\\s{}:]+" };
    this.#open(word("strip_add_name"), [field, key], (values) => this.strip.edit({ kind: "name", ...values }));
  }

  /** The versions of a shot, to choose one. @param {import("../takes/routes.mjs").TakeShot} shot */
  versions(shot) {
    const { element, script, word } = this.strip;
    if (this.#isOpen) return;
    openVersions(element, shot, script.url, word, (version) => void this.strip.choose(shot.shot, version), () => this.#closed());
  }

  get #isOpen() {
    return this.strip.element.querySelector(".ll-editor") !== null;
  }

  #closed() {
    this.strip.list.focus({ preventScroll: true });
  }

  /** @param {string} title @param {import("./editor.mjs").Field[]} fields @param {(values: Record<string, string>) => Promise<string>} save */
  #open(title, fields, save) {
    if (!this.#isOpen) openEditor(this.strip.element, title, fields, this.strip.word, save, () => this.#closed());
  }
}
