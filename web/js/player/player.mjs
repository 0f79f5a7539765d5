// Plays one film, from its first block on while it is made: streamed where the browser can, else as stills, then whole.
import { isRunning } from "../store.mjs";
import { Feed, canStream } from "./feed.mjs";
import { Stills } from "./stills.mjs";
import { View } from "./view.mjs";

/** @typedef {import("../types").Film} Film */

/**
 * What a player needs of the server.
 *
 * @typedef {object} Source
 * @property {(film: Film, from: number, to: number, signal: AbortSignal) => Promise<Uint8Array<ArrayBuffer>>} read
 * @property {(film: Film) => string} address of the whole file
 * @property {(film: Film) => Promise<[number, number][]>} blocks first frame and byte of each block
 */

export class Player {
  /** @type {View} */
  view;
  #film;
  #source;
  #word;
  /** @type {Feed | undefined} */
  #feed;
  /** @type {Stills | undefined} */
  #stills;
  #refused = false;
  #whole = false;

  /** @param {Film} film @param {Source} source @param {Omit<import("./view.mjs").Actions, "seek">} actions */
  constructor(film, source, actions) {
    this.#film = film;
    this.#source = source;
    this.#word = actions.word;
    this.view = new View(film, { ...actions, seek: (time) => void this.#seek(time) });
    const { video } = this.view;
    video.addEventListener("loadeddata", () => {
      if (!this.#stills) return;
      this.#stills.hide();
      this.view.say("");
    });
    video.addEventListener("error", () => this.#whole && this.view.say(actions.word("film_unplayable", { name: this.#film.name })));
    this.#follow();
  }

  /** @param {Film} film the same film, or the node's next one */
  tell(film) {
    const { prompt_id: prompt, name } = this.#film;
    if (film.prompt_id !== prompt || (name && film.name !== name)) this.#restart();
    this.#film = film;
    this.#feed?.tell(film);
    this.#stills?.tell(film);
    this.view.show(film);
    this.#follow();
  }

  /** @param {{ jobId?: string, blob: Blob }} preview */
  preview(preview) {
    this.#stills?.take(preview);
  }

  close() {
    this.#restart();
    this.view.element.remove();
  }

  /** Plays on after the element was moved in the document, which pauses it. */
  moved() {
    if (isRunning(this.#film) && this.#feed) void this.view.video.play().catch(() => {});
  }

  #restart() {
    const { video } = this.view;
    this.#feed?.close();
    this.#stills?.close();
    this.#feed = this.#stills = undefined;
    this.#refused = this.#whole = false;
    this.view.say("");
    if (video.getAttribute("src")) {
      video.removeAttribute("src");
      video.load();
    }
  }

  #follow() {
    const [film, { video, still }] = [this.#film, this.view];
    if (isRunning(film)) {
      if (this.#feed || this.#stills || !film.mime) return;
      if (this.#refused || !canStream(film)) {
        this.#stills = new Stills(still, film);
        this.view.say(this.#word("film_stills"));
      } else if (film.frames) this.#stream();
    } else if (film.frames && !this.#whole && (!this.#feed || this.#feed.dropped)) {
      const [at, plays] = [video.currentTime, !video.paused && !!this.#feed];
      this.#feed?.close();
      this.#feed = undefined;
      this.#whole = true;
      this.view.say("");
      video.src = this.#source.address(film);
      video.currentTime = at;
      if (plays) void video.play().catch(() => {});
    }
  }

  #stream() {
    const { video } = this.view;
    this.#feed = new Feed(video, this.#film, this.#source.read, () => {
      this.#feed = undefined;
      this.#refused = true;
      video.removeAttribute("src");
      video.load();
      this.#follow();
    });
    void video.play().catch(() => {});
  }

  /** @param {number} time in seconds */
  async #seek(time) {
    const { video } = this.view;
    // The moment behind the last frame is the end, at which a film that is being made waits.
    const last = Math.max(0, time - 0.5 / (this.#film.fps || 24));
    if (!this.#feed || this.#feed.has(last)) {
      video.currentTime = this.#feed ? last : time;
      return;
    }
    const blocks = await this.#source.blocks(this.#film);
    const block = blocks.filter(([frame]) => frame / this.#film.fps <= last).at(-1);
    if (block) this.#feed?.jump(last, block[1]);
  }
}
