// What the player says of a film: numbers and which words, without the page.
import { clock } from "../text.mjs";
import { isRunning } from "../store.mjs";

/** @typedef {import("../types").Film} Film */
/** @typedef {(key: string, values?: Record<string, string | number>) => string} Word */

/** Seconds of a film that are made. @param {Film} film */
export const made = ({ frames, fps }) => (fps ? frames / fps : 0);

/** Seconds of the whole film. @param {Film} film */
export const whole = ({ total_frames, fps }) => (fps ? total_frames / fps : 0);

/** @param {number} seconds */
const tenths = (seconds) => Math.round(seconds * 10) / 10;

/** A length, as in `3.5 s`, or `1:46` from a minute on. @param {number} seconds @param {Word} word */
export const length = (seconds, word) =>
  seconds < 60 ? word("film_length", { seconds: tenths(seconds) }) : clock(seconds);

/**
 * Two lengths in one unit, as in `3.5` and `15.9 s`, or `0:04` and `1:46`.
 *
 * @param {number} part
 * @param {number} total
 * @param {Word} word
 */
export const lengths = (part, total, word) => ({
  part: total < 60 ? String(tenths(part)) : clock(part),
  total: length(total, word),
});

/**
 * The line under the player.
 *
 * @param {Film} film
 * @param {Word} word
 * @returns {string}
 */
export function filmLine(film, word) {
  const parts = isRunning(film) ? running(film, word) : ended(film, word);
  return parts.filter(Boolean).join(" · ");
}

/** @param {Film} film @param {Word} word */
function running(film, word) {
  if (!film.shot) return [film.line || word("film_waiting"), film.name];
  const { shot, shots, pace, left } = film;
  return [
    word("film_shot", { shot, shots }),
    pace && word("film_pace", { fps: pace < 10 ? pace.toFixed(1) : Math.round(pace) }),
    left !== null && word("film_left", { time: clock(left) }),
    film.name,
  ];
}

/** @param {Film} film @param {Word} word */
function ended(film, word) {
  const total = whole(film);
  if (film.state === "done") return [film.name, total > 0 && length(total, word)];
  const kept = film.frames ? word("film_kept", lengths(made(film), total, word)) : word("film_nothing");
  return [film.state === "failed" && film.line, kept, film.state === "stopped" && word("film_goes_on")];
}
