// The versions of a shot side by side, over the strip: one of them is chosen, and more can be made.
import { icon, make } from "../dom.mjs";

/** How many versions can be made at a time: MAX_VERSIONS of longlive_core/film/shot_versions.py. */
const MOST = 16;
const USUAL = 4;

/**
 * @typedef {import("../takes/routes.mjs").TakeShot} TakeShot
 *
 * @typedef {object} Making versions that are being made
 * @property {number} shot from 1
 * @property {number} wanted how many
 * @property {number} made how many are finished
 * @property {string} line what the sampler says; "" while they wait
 *
 * @typedef {object} VersionActions
 * @property {(version: import("../takes/routes.mjs").Version) => void} choose
 * @property {(count: number) => Promise<string>} make returns an error, or ""
 * @property {() => void} stop
 * @property {() => void} closed
 */

export class Versions {
  #shows = "";
  /** @type {HTMLButtonElement[]} */ #cards = [];

  /**
   * Opens the versions of a shot over an element. Escape closes them, arrows go from one to the next.
   *
   * @param {HTMLElement} over
   * @param {TakeShot} shot
   * @param {Making | undefined} making
   * @param {(path: string) => string} url
   * @param {(key: string, values?: Record<string, string | number>) => string} word
   * @param {VersionActions} actions
   */
  constructor(over, shot, making, url, word, actions) {
    this.number = shot.shot;
    this.url = url;
    this.word = word;
    this.actions = actions;
    const title = word("takes_versions", { shot: shot.shot });
    this.list = make("div", { className: "ll-versions", role: "radiogroup", "aria-label": title });
    this.message = make("span", { className: "ll-mistake", role: "alert" });
    this.end = make("div", { className: "ll-editor-end" });
    this.element = make(
      "div",
      { className: "ll-editor", role: "dialog", "aria-label": title },
      make("div", { className: "ll-editor-title" }, title),
      this.list,
      this.end,
    );
    const count = make("input", { type: "number", value: String(USUAL), min: "1", max: String(MOST), "aria-label": word("versions_count") });
    this.more = [count, this.#button("versions_make", () => this.#make(Number(count.value)))];
    this.stop = this.#button("versions_stop", () => actions.stop());
    this.closer = this.#button("versions_close", () => this.close());
    this.line = make("span", { className: "ll-versions-line", role: "status" });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    over.append(this.element);
    this.show(shot, making);
    (this.#cards[shot.chosen] ?? count).focus();
  }

  /** @param {string} key @param {() => void} onclick */
  #button(key, onclick) {
    return make("button", { type: "button", className: "ll-button", onclick }, this.word(key));
  }

  /** Shows the shot as it is now. @param {TakeShot} shot @param {Making | undefined} making */
  show(shot, making) {
    const own = making?.shot === shot.shot ? making : undefined;
    const shows = JSON.stringify([shot.versions, shot.chosen, shot.locked, Boolean(own), own?.made]);
    if (shows !== this.#shows) {
      this.#shows = shows;
      this.#drawCards(shot, own);
    }
    const line = own && (own.line || this.word("versions_waiting"));
    this.line.textContent = own ? this.word("versions_making", { made: own.made + 1, wanted: own.wanted, line: line ?? "" }) : "";
    const fixed = shot.locked || shot.given;
    const parts = making ? [this.line, ...(own ? [this.stop] : [])] : fixed ? [] : [this.message, ...this.more];
    const wanted = [...parts, this.closer];
    if (wanted.length === this.end.childElementCount && wanted.every((part, index) => part === this.end.children[index])) return;
    const focused = this.end.contains(document.activeElement);
    this.end.replaceChildren(...wanted);
    // A button that is gone must not take the focus with it: keys would go to the canvas.
    if (focused && !this.end.contains(document.activeElement)) this.end.querySelector("button")?.focus();
  }

  close() {
    this.element.remove();
    this.actions.closed();
  }

  /** @param {TakeShot} shot @param {Making | undefined} making */
  #drawCards(shot, making) {
    const focused = this.#cards.findIndex((card) => card === document.activeElement);
    this.#cards = shot.versions.map((version) => this.#card(shot, version));
    const next = making && make("div", { className: "ll-version ll-next" }, make("span", { className: "ll-picture" }, icon("pi-spin pi-spinner")), make("span", {}, this.word("versions_next")));
    this.list.replaceChildren(...this.#cards, ...(next ? [next] : []));
    if (next) next.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (focused >= 0) this.#cards[focused]?.focus();
  }

  /** @param {TakeShot} shot @param {import("../takes/routes.mjs").Version} version */
  #card(shot, version) {
    const picture = version.still
      ? make("img", { src: this.url(version.still), alt: "", className: "ll-still", draggable: false })
      : make("span", { className: "ll-number" }, String(version.version + 1));
    return make(
      "button",
      {
        type: "button",
        className: "ll-version",
        role: "radio",
        "aria-checked": version.version === shot.chosen,
        title: version.text,
        disabled: shot.locked,
        onclick: () => {
          this.close();
          this.actions.choose(version);
        },
      },
      make("span", { className: "ll-picture" }, picture),
      make("span", {}, this.#describe(version, shot)),
    );
  }

  /** @param {import("../takes/routes.mjs").Version} version @param {TakeShot} shot */
  #describe(version, shot) {
    const parts = [
      this.word("takes_version", { version: version.version + 1 }),
      version.seed === null ? "" : this.word("takes_seed", { seed: version.seed }),
      version.blocks < shot.blocks ? this.word("takes_not_made") : "",
    ];
    return parts.filter(Boolean).join(" · ");
  }

  /** @param {number} count */
  async #make(count) {
    this.message.textContent = "";
    if (!Number.isInteger(count) || count < 1 || count > MOST) this.message.textContent = this.word("versions_range", { most: MOST });
    else this.message.textContent = await this.actions.make(count);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    event.stopPropagation();
    if (event.key === "Escape") return this.close();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    const at = this.#cards.findIndex((card) => card === document.activeElement);
    this.#cards[(at + step + this.#cards.length) % this.#cards.length]?.focus();
  }
}
