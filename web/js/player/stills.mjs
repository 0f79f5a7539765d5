// The newest frames as pictures, where a film cannot be streamed: by a browser without its codec, or a server's policy.
import { isRunning } from "../store.mjs";

/** @typedef {import("../types").Film} Film */

/** Shows the previews of a film's run, which are the frames that were decoded for its file. */
export class Stills {
  #image;
  #film;
  #url = "";

  /** @param {HTMLImageElement} image @param {Film} film */
  constructor(image, film) {
    this.#image = image;
    this.#film = film;
    image.hidden = false;
  }

  /** @param {{ jobId?: string, blob: Blob }} preview of the front-end's event */
  take({ jobId, blob }) {
    if (jobId !== this.#film.prompt_id || !isRunning(this.#film)) return;
    const before = this.#url;
    this.#image.src = this.#url = URL.createObjectURL(blob);
    if (before) URL.revokeObjectURL(before);
  }

  /** @param {Film} film */
  tell(film) {
    this.#film = film;
  }

  /** Hides the picture once the film itself plays. */
  hide() {
    this.#image.hidden = true;
  }

  close() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#image.removeAttribute("src");
  }
}
