// Feeds a film that is being made to a <video>: fetches the bytes that the server announces and appends them.
import { isRunning } from "../store.mjs";
import { Boxes } from "./boxes.mjs";

/** @typedef {import("../types").Film} Film */

// The longest request, in bytes.
const PIECE = 4 << 20;
// When the browser's buffer is full, what was played longer ago than this is dropped, in seconds.
const KEPT_BEHIND = 10;
const RETRY_MS = 500;

/** Whether this browser plays the film while it grows. @param {Film} film */
export function canStream({ mime }) {
  return typeof MediaSource !== "undefined" && mime.includes("codecs=") && MediaSource.isTypeSupported(mime);
}

/** @param {EventTarget} target @param {string} type @param {AbortSignal} signal @returns {Promise<void>} */
function once(target, type, signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    target.addEventListener(type, () => resolve(), { once: true, signal });
  });
}

export class Feed {
  #video;
  #film;
  #read;
  #stop = new AbortController();
  #at = 0;
  #boxes = new Boxes();
  /** @type {{ time: number, byte: number } | undefined} */
  #jump;
  #wake = () => {};
  /** Whether what was played has been dropped, because the browser's buffer was full. */
  dropped = false;

  /**
   * @param {HTMLVideoElement} video
   * @param {Film} film
   * @param {(film: Film, from: number, to: number, signal: AbortSignal) => Promise<Uint8Array<ArrayBuffer>>} read fetches
   *   bytes [from, to)
   * @param {() => void} refused is called if the browser, or a policy of the server, does not play the film
   */
  constructor(video, film, read, refused) {
    this.#video = video;
    this.#film = film;
    this.#read = read;
    const { signal } = this.#stop;
    const stop = () => {
      if (signal.aborted) return;
      this.#stop.abort();
      refused();
    };
    video.addEventListener("error", stop, { signal });
    this.#run(signal).catch(stop);
  }

  /** @param {Film} film */
  tell(film) {
    this.#film = film;
    this.#wake();
  }

  close() {
    this.#stop.abort();
  }

  /** Whether a moment, in seconds, is in the browser's buffer or comes next, and was not dropped. @param {number} time */
  has(time) {
    const { buffered } = this.#video;
    return !buffered.length || buffered.start(0) <= time;
  }

  /** Goes on from the block that begins at a byte of the file. @param {number} time in seconds @param {number} byte */
  jump(time, byte) {
    this.#jump = { time, byte };
    this.#wake();
  }

  /** @param {AbortSignal} signal */
  async #run(signal) {
    const source = new MediaSource();
    const opened = once(source, "sourceopen", signal);
    const url = URL.createObjectURL(source);
    this.#video.src = url;
    try {
      await opened;
    } finally {
      URL.revokeObjectURL(url);
    }
    const buffer = source.addSourceBuffer(this.#film.mime);
    while (!signal.aborted) {
      if (this.#jump) await this.#leap(buffer, signal);
      const film = this.#film;
      if (this.#at < film.bytes && !this.#boxes.ended) await this.#append(buffer, await this.#next(film, signal), signal);
      else if (isRunning(film)) await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
      else {
        if (source.readyState === "open") source.endOfStream();
        await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
      }
    }
  }

  /** @param {Film} film @param {AbortSignal} signal */
  async #next(film, signal) {
    const piece = await this.#read(film, this.#at, Math.min(film.bytes, this.#at + PIECE), signal);
    const usable = film.mime.startsWith("video/mp4") ? this.#boxes.usable(piece, this.#at) : piece.length;
    if (!usable && !this.#boxes.ended) throw new Error(`${film.name} has no fragment at byte ${this.#at}`);
    this.#at += usable;
    return piece.subarray(0, usable);
  }

  /** @param {SourceBuffer} buffer @param {Uint8Array<ArrayBuffer>} piece @param {AbortSignal} signal */
  async #append(buffer, piece, signal) {
    while (piece.length && !this.#jump) {
      try {
        buffer.appendBuffer(piece);
        return await once(buffer, "updateend", signal);
      } catch (error) {
        if (!(error instanceof DOMException && error.name === "QuotaExceededError")) throw error;
        await this.#drop(buffer, signal);
      }
    }
  }

  /** Makes room by dropping what was played. @param {SourceBuffer} buffer @param {AbortSignal} signal */
  async #drop(buffer, signal) {
    const end = this.#video.currentTime - KEPT_BEHIND;
    if (!buffer.buffered.length || end <= buffer.buffered.start(0)) {
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      return;
    }
    buffer.remove(0, end);
    this.dropped = true;
    await once(buffer, "updateend", signal);
  }

  /** @param {SourceBuffer} buffer @param {AbortSignal} signal */
  async #leap(buffer, signal) {
    const { time, byte } = /** @type {{ time: number, byte: number }} */ (this.#jump);
    this.#jump = undefined;
    buffer.remove(0, Infinity);
    await once(buffer, "updateend", signal);
    [this.#at, this.#boxes, this.dropped] = [byte, new Boxes(byte), true];
    this.#video.currentTime = time;
  }
}
