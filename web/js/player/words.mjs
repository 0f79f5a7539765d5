// What the player says of a film: numbers and which words, without the page.
import { clock } from "../text.mjs";
import { isRunning } from "../store.mjs";

/** @typedef {import("../types").Film} Film */
/** @typedef {(key: string, values?: Record<string, string | number>) => string} Word */

/** Seconds of a film that are made. @param {Film} film */
export const made = ({ frames, fps }) => (fps ? frames / fps : 0);

/** Seconds of the whole film. @param {Film} film */
export const whole = ({ total_frames, fps }) => (fps ? total_frames / fps : 0);

/** A length in seconds, as in `3.5` or `12`, or as a time from a minute on. @param {number} seconds */
export const short = (seconds) => (seconds < 60 ? String(Math.round(seconds * 10) / 10) : clock(seconds));

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
  const total = short(whole(film));
  if (film.state === "done") return [film.name, total !== "0" && word("film_length", { seconds: total })];
  const kept = film.frames ? word("film_kept", { made: short(made(film)), total }) : word("film_nothing");
  return [film.state === "failed" && film.line, kept, film.state === "stopped" && word("film_goes_on")];
}
