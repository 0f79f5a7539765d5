// What is known of versions of a shot that are made, or wait to be made.
import { isRunning } from "../store.mjs";

/** @typedef {import("../types").Film} Film */

/** Id of the node in prompts, one for each sampler; the canvas has no node of it. @param {string} sampler */
export const nodeOf = (sampler) => `longlive_versions_${sampler.replaceAll(":", "_")}`;

/**
 * What is shown of versions that are made: those of a film that the server tells of, or those that wait in the queue.
 *
 * @param {Film | undefined} film
 * @param {{shot: number, wanted: number} | undefined} queued
 * @returns {import("./versions.mjs").Making | undefined}
 */
export function makingOf(film, queued) {
  if (film?.versions && isRunning(film)) {
    const { shot, wanted, made } = film.versions;
    return { shot, wanted, made: made.length, line: film.line };
  }
  return queued && { ...queued, made: 0, line: "" };
}
