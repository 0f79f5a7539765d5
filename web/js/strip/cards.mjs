// The cards of a strip: frames of a film with number, length and prompt. Only those in view are in the document.
import { icon, make } from "../dom.mjs";
import { continuityText } from "./continuity.mjs";
import { visible } from "./layout.mjs";

/** Pixels beside the view whose cards are made too. */
const BESIDE = 150;

/**
 * @typedef {object} ShotState what is known of a shot's film
 * @property {"unmade" | "waiting" | "making" | "board" | "made"} state
 * @property {number} [progress] from 0 to 1 while it is made
 * @property {boolean} [locked]
 * @property {boolean} [accepted] on the storyboard
 * @property {import("../takes/routes.mjs").ShotScore} [continuity] of a shot that is made
 *
 * @typedef {object} View what the cards show
 * @property {import("./reading.mjs").Outline} outline
 * @property {import("./layout.mjs").Layout} layout
 * @property {number} selected index
 * @property {Set<number>} warned numbers of the shots with warnings
 * @property {Map<number, string>} stills addresses of pictures by number
 * @property {Map<number, ShotState>} states by number
 * @property {number} scroll
 * @property {number} width of the view
 */

/** @type {Record<ShotState["state"], string>} */
const STATES = { unmade: "strip_unmade", waiting: "strip_waiting", making: "strip_making", board: "strip_board", made: "strip_made" };
const ICONS = { waiting: "pi-clock", making: "pi-spin pi-spinner", board: "", made: "pi-check", unmade: "" };

export class Cards {
  /** @type {Map<number, {element: HTMLElement, shows: string}>} */
  #cards = new Map();

  /**
   * @param {HTMLElement} reel that holds the cards
   * @param {string} id in front of the numbers in the ids of the cards
   * @param {(key: string, values?: Record<string, string | number>) => string} word
   */
  constructor(reel, id, word) {
    this.reel = reel;
    this.id = id;
    this.word = word;
  }

  /** @param {number} index */
  cardId(index) {
    return `${this.id}-${index + 1}`;
  }

  /** @param {number} index */
  element(index) {
    return this.#cards.get(index)?.element;
  }

  /** Draws the cards in view, and the selected one, which the list refers to. @param {View} view */
  draw(view) {
    const [first, last] = visible(view.layout, view.scroll - BESIDE, view.scroll + view.width + BESIDE);
    this.reel.style.width = `${view.layout.width}px`;
    for (const [index, { element }] of this.#cards) {
      if ((index >= first && index < last) || index === view.selected) continue;
      element.remove();
      this.#cards.delete(index);
    }
    for (let index = first; index < last; index++) this.#drawOne(index, view);
    if (view.selected < view.layout.lefts.length) this.#drawOne(view.selected, view);
  }

  /** @param {number} index @param {View} view */
  #drawOne(index, view) {
    const shot = view.outline.shots[index];
    const state = view.states.get(shot.number) ?? { state: "unmade" };
    const after = view.outline.shots[index + 1];
    const facts = {
      shot: [shot.text, shot.seconds, shot.blocks, shot.continues, shot.seed],
      joined: Boolean(after?.continues),
      count: view.outline.shots.length,
      warned: view.warned.has(shot.number),
      still: view.stills.get(shot.number),
      state,
    };
    const shows = JSON.stringify(facts);
    let card = this.#cards.get(index);
    if (card?.shows !== shows) {
      const element = this.#make(index, shot, facts);
      if (card) card.element.replaceWith(element);
      else this.reel.append(element);
      card = { element, shows };
      this.#cards.set(index, card);
    }
    const { style } = card.element;
    style.left = `${view.layout.lefts[index]}px`;
    style.width = `${view.layout.widths[index]}px`;
    card.element.setAttribute("aria-selected", String(index === view.selected));
  }

  /**
   * @param {number} index
   * @param {import("./reading.mjs").Shot} shot
   * @param {{joined: boolean, count: number, warned: boolean, still?: string, state: ShotState}} facts
   */
  #make(index, shot, { joined, count, warned, still, state }) {
    const length = this.length(shot);
    const picture = still
      ? make("img", { src: still, alt: "", draggable: false, className: "ll-still" })
      : make("span", { className: "ll-number" }, String(shot.number));
    const progress = state.state === "making" ? make("span", { className: "ll-progress" }) : undefined;
    if (progress) progress.style.width = `${Math.round((state.progress ?? 0) * 100)}%`;
    const tag = state.state === "board" ? this.#tag(state) : undefined;
    const badges = [
      warned ? "pi-exclamation-triangle ll-warned" : "",
      state.locked ? "pi-lock" : "",
      ICONS[state.state],
    ].filter(Boolean);
    const number = still ? make("span", { className: "ll-corner" }, String(shot.number)) : undefined;
    const classes = ["ll-card", `ll-${state.state}`, shot.continues ? "ll-continues" : "", joined ? "ll-joined" : ""];
    return make(
      "div",
      {
        id: this.cardId(index),
        className: classes.filter(Boolean).join(" "),
        role: "option",
        title: shot.text,
        "aria-label": this.#label(shot, warned, state),
        "aria-posinset": index + 1,
        "aria-setsize": count,
        "data-index": index,
      },
      make(
        "div",
        { className: "ll-frame" },
        make("div", { className: "ll-picture" }, picture, number, tag, progress),
        badges.length ? make("span", { className: "ll-badges" }, ...badges.map(icon)) : undefined,
      ),
      " ", // parts of the text that can be seen
      make("div", { className: "ll-length" }, shot.continues ? icon("pi-link") : undefined, length, this.#score(state)),
      " ",
      make("div", { className: "ll-prompt" }, shot.text),
      make("div", { className: "ll-edge", "aria-hidden": "true" }),
    );
  }

  /** What marks a card of the storyboard; its word is in the style, as the card's name has it. @param {ShotState} state */
  #tag({ accepted }) {
    const values = { className: accepted ? "ll-tag ll-accepted" : "ll-tag", "data-tag": this.word("strip_board_tag") };
    return make("span", values, accepted ? icon("pi-thumbs-up-fill") : undefined);
  }

  /** The continuity of a shot, marked where something is below the limit. @param {ShotState} state */
  #score({ continuity }) {
    if (!continuity) return undefined;
    const low = continuity.faults.length > 0;
    const values = { className: low ? "ll-score ll-low" : "ll-score", title: continuityText(continuity, this.word) };
    return make("span", values, low ? icon("pi-exclamation-circle") : undefined, continuity.score.toFixed(2));
  }

  /** The length of a shot, as in `4 s`. @param {{seconds: number}} shot */
  length({ seconds }) {
    return this.word("strip_seconds", { seconds: seconds.toFixed(1).replace(/\.0$/, "") });
  }

  /** @param {import("./reading.mjs").Shot} shot @param {boolean} warned @param {ShotState} state */
  #label(shot, warned, state) {
    const parts = [
      this.word("strip_shot", { shot: shot.number }),
      this.length(shot),
      shot.text, // the words that can be seen come first, in their order
      shot.number > 1 ? this.word(shot.continues ? "strip_continues" : "strip_cut") : "",
      this.word(STATES[state.state], { percent: Math.round((state.progress ?? 0) * 100) }),
      state.accepted ? this.word("strip_accepted") : "",
      state.continuity ? continuityText(state.continuity, this.word) : "",
      state.locked ? this.word("strip_locked") : "",
      warned ? this.word("strip_warned") : "",
      shot.seed === null ? "" : this.word("strip_seed_is", { seed: shot.seed }),
    ];
    return parts.filter(Boolean).join(", ");
  }
}
