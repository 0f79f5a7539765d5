// The list of a strip in which its cards stand: their widths, zoom, scrolling and dragging.
import { make } from "../dom.mjs";
import { Cards } from "./cards.mjs";
import { draggable } from "./drag.mjs";
import { fit, layOut, MAX_PER_BLOCK, scrollTo } from "./layout.mjs";
import { warnedShots } from "./warnings.mjs";

export class Reel {
  /** The length that a card is dragged to. @type {{index: number, blocks: number} | undefined} */ #preview;
  #layout = layOut([], 1);
  #perBlock = 1;
  /** @type {Set<number>} */ #warned = new Set();
  /** @type {import("./reading.mjs").Outline | undefined} */ #read;

  /** @param {import("./strip.mjs").Strip} strip */
  constructor(strip) {
    const { word } = strip;
    this.strip = strip;
    const marker = make("div", { className: "ll-marker", hidden: true });
    const reel = make("div", { className: "ll-reel", role: "presentation" }, marker);
    this.list = make(
      "div",
      { className: "ll-film", role: "listbox", tabIndex: 0, "aria-label": word("strip_shots"), "aria-orientation": "horizontal" },
      reel,
    );
    this.cards = new Cards(reel, strip.id, word);
    this.#listen(marker);
  }

  /** @param {HTMLElement} marker */
  #listen(marker) {
    const { strip } = this;
    draggable(this.list, marker, {
      layout: () => this.#layout,
      perBlock: () => this.#perBlock,
      blocks: (index) => strip.state.outline?.shots[index].blocks ?? 1,
      card: (index) => this.cards.element(index),
      select: (index) => strip.select(index),
      preview: (index, blocks) => {
        this.#preview = { index, blocks };
        strip.draw();
      },
      move: (index, to) => strip.edits.make({ kind: "move", shot: index + 1, to: to + 1 }),
      stretch: (index, blocks) => strip.stretch(index, blocks),
      open: () => strip.run({ name: "edit" }),
    });
  }

  /** Ends the preview of a length that is dragged. */
  settle() {
    this.#preview = undefined;
  }

  /** Lays the cards out anew and draws them. @param {import("./reading.mjs").Outline} outline */
  draw(outline) {
    const { state } = this.strip;
    const shots = this.#previewed(outline);
    if (!this.#preview) this.#perBlock = state.zoom || fit(shots, this.list.clientWidth - 2);
    this.#layout = layOut(shots, this.#perBlock);
    this.drawCards({ ...outline, shots });
    if (Math.abs(this.list.scrollLeft - state.scroll) > 1) this.list.scrollLeft = state.scroll;
  }

  /** The shots, one of them with the length that its card is dragged to. @param {import("./reading.mjs").Outline} outline */
  #previewed({ shots, block_seconds: block }) {
    const preview = this.#preview;
    if (!preview) return shots;
    const { index, blocks } = preview;
    return shots.map((shot, at) => (at === index ? { ...shot, blocks, seconds: shot.seconds + (blocks - shot.blocks) * block } : shot));
  }

  /** Draws the cards in view where they are. @param {import("./reading.mjs").Outline} [shown] */
  drawCards(shown) {
    const { outline, selected, stills, states, scroll } = this.strip.state;
    if (!outline) return;
    this.cards.draw({
      outline: shown ?? outline,
      layout: this.#layout,
      selected,
      warned: this.#warnedShots(outline),
      stills,
      states,
      scroll,
      width: this.list.clientWidth,
    });
    this.list.setAttribute("aria-activedescendant", this.cards.cardId(selected));
  }

  /** @param {import("./reading.mjs").Outline} outline */
  #warnedShots(outline) {
    if (outline !== this.#read) this.#warned = warnedShots(outline);
    this.#read = outline;
    return this.#warned;
  }

  /** Scrolls to the selected card. */
  reveal() {
    const { state } = this.strip;
    this.list.scrollLeft = scrollTo(this.#layout, state.selected, this.list.scrollLeft, this.list.clientWidth);
    state.scroll = this.list.scrollLeft;
  }

  /** Makes the cards wider, or narrower. @param {number} factor 0 fits the film into the view */
  zoom(factor) {
    this.strip.state.zoom = factor ? Math.max(2, Math.min(MAX_PER_BLOCK, this.#perBlock * factor)) : 0;
  }

  /** Takes the focus back that it had before its node was made anew, unless the user is elsewhere by now. */
  refocus() {
    const { activeElement } = document;
    if (!this.strip.state.focused || activeElement === this.list || !this.list.isConnected) return;
    if (activeElement?.closest("input, textarea, .longlive-strip")) return;
    this.list.focus({ preventScroll: true });
  }
}
