// The scrub bar: what is made, what was played, the cuts, and a position that pointer and keys move.
import { lengths } from "./words.mjs";

const STEP = 1;
const PAGE = 5;

/** Pixels on the screen for each pixel of layout: nodes are zoomed. @param {HTMLElement} element */
const zoom = (element) => element.getBoundingClientRect().width / (element.offsetWidth || 1);

/** The time after a key, in seconds; undefined for other keys. @param {string} key @param {number} at @param {number} end */
export function keyTime(key, at, end) {
  /** @type {Record<string, number>} */
  const times = {
    ArrowLeft: at - STEP,
    ArrowDown: at - STEP,
    ArrowRight: at + STEP,
    ArrowUp: at + STEP,
    PageDown: at - PAGE,
    PageUp: at + PAGE,
    Home: 0,
    End: end,
  };
  return key in times ? Math.max(0, Math.min(end, times[key])) : undefined;
}

export class Scrub {
  element = document.createElement("div");
  #made = document.createElement("div");
  #played = document.createElement("div");
  #cuts = document.createElement("div");
  #state = { at: 0, made: 0, total: 0 };
  #cutTimes = "";

  /** @param {(time: number) => void} seek @param {import("./words.mjs").Word} word */
  constructor(seek, word) {
    this.element.className = "longlive-scrub";
    this.element.tabIndex = 0;
    this.element.role = "slider";
    this.element.ariaLabel = word("film_position");
    [this.#made, this.#played, this.#cuts].forEach((part, i) => (part.className = ["made", "played", "cuts"][i]));
    const track = document.createElement("div");
    track.className = "track";
    track.append(this.#made, this.#played, this.#cuts);
    this.element.append(track);
    this.#listen(seek);
    this.#word = word;
  }
  #word;

  /** @param {{ at: number, made: number, total: number }} state in seconds @param {number[]} cuts in seconds */
  show(state, cuts) {
    this.#state = state;
    const share = (/** @type {number} */ time) => `${state.total ? Math.min(100, (100 * time) / state.total) : 0}%`;
    this.#made.style.width = share(state.made);
    this.#played.style.width = share(state.at);
    this.element.ariaValueMin = "0";
    this.element.ariaValueMax = state.made.toFixed(1);
    this.element.ariaValueNow = state.at.toFixed(1);
    this.element.ariaValueText = this.#word("film_position_value", lengths(state.at, state.total, this.#word));
    if (this.#cutTimes === `${cuts} ${state.total}`) return;
    this.#cutTimes = `${cuts} ${state.total}`;
    this.#cuts.replaceChildren(
      ...cuts.map((cut) => Object.assign(document.createElement("i"), { style: `left: ${share(cut)}` })),
    );
  }

  /** @param {(time: number) => void} seek */
  #listen(seek) {
    const { element } = this;
    /** @param {PointerEvent} event */
    const move = (event) => {
      const { left } = element.getBoundingClientRect();
      const share = (event.clientX - left) / zoom(element) / (element.offsetWidth || 1);
      seek(Math.max(0, Math.min(this.#state.made, share * this.#state.total)));
    };
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.stopPropagation();
      element.setPointerCapture(event.pointerId);
      move(event);
    });
    element.addEventListener("pointermove", (event) => {
      if (!element.hasPointerCapture(event.pointerId)) return;
      event.stopPropagation();
      move(event);
    });
    element.addEventListener("keydown", (event) => {
      const time = keyTime(event.key, this.#state.at, this.#state.made);
      if (time === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation(); // from the canvas, which moves nodes by the arrow keys
      seek(time);
    });
  }
}
