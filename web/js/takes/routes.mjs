// The routes of takes, which nodes/routes/takes.py answers.
import { api, request } from "../host.mjs";

/**
 * @typedef {object} TakeSummary
 * @property {string} name path in the output folder
 * @property {string} title
 * @property {number} bytes
 * @property {number} seconds
 * @property {number} blocks
 * @property {number} made blocks that are stored
 * @property {boolean} complete
 * @property {number} modified seconds since 1970
 * @property {string | null} still address of a picture
 * @property {boolean} auto saved by itself
 * @property {boolean} removable offered for removal
 * @property {boolean} making this server makes it now
 * @property {boolean} workflow the take has one
 *
 * @typedef {object} Version
 * @property {number} version
 * @property {string} text
 * @property {number | null} seed
 * @property {string} made
 * @property {number} blocks stored
 * @property {string | null} still
 * @property {boolean} accepted on the storyboard
 *
 * @typedef {object} TakeShot
 * @property {number} shot from 1
 * @property {number} blocks
 * @property {number} start in seconds
 * @property {number} seconds
 * @property {number} chosen
 * @property {boolean} locked
 * @property {boolean} spliced
 * @property {boolean} given a given video
 * @property {Version[]} versions
 *
 * @typedef {{ filename: string, subfolder: string, type: string }} SavedFile
 * @typedef {Omit<TakeSummary, "shots"> & { script: string, film: SavedFile | null, shots: TakeShot[] }} Take
 * @typedef {object} TakeList
 * @property {TakeSummary[]} takes newest first
 * @property {{ name: string, error: string }[]} unreadable
 * @property {number} bytes of all takes that saved themselves
 * @property {number} limit in bytes
 * @property {boolean} keep
 *
 * @typedef {{ take: Take, notes: string[] }} Changed
 */

const PATH = "/longlive/takes";

/** @param {string} name */
const address = (name) => `${PATH}/${encodeURIComponent(name)}`;

/** @returns {Promise<TakeList>} */
export const listTakes = () => request(PATH);

/** @param {string} name @returns {Promise<Take>} */
export const readTake = (name) => request(address(name));

/**
 * @typedef {object} Making what a film is made from, as nodes/routes/take_of_film.py takes it
 * @property {string} workflow
 * @property {string} node id of the sampler
 * @property {string} script
 * @property {number} default_seconds
 * @property {[string, string][]} cast wired files, each with its name in the script
 * @property {Record<string, string | number>} settings
 * @property {unknown[]} sources
 *
 * @typedef {{ take: Take | null, changes: import("../strip/shot_states.mjs").Changes | null, refused: string }} TakeOfFilm
 */

/** The take that a run would go on in, or else the node's newest one. @param {Making} making @returns {Promise<TakeOfFilm>} */
export const readTakeOfFilm = (making) => request(`${PATH}/changes`, making);

/**
 * @typedef {{ measure: string, score: number, shots: number[], files: number[], cut: boolean }} Fault
 * @typedef {{ shot: number, score: number, faults: Fault[] }} ShotScore
 * @typedef {{ limit: number, shots: ShotScore[], waiting?: boolean }} Continuity waiting: for other films to be made
 */

/** What the shots of a take's film score; no shots where there is no such film. @param {string} name @returns {Promise<Continuity>} */
export const readContinuity = (name) => request(`${address(name)}/continuity`);

/** @param {string} name @returns {Promise<{ workflow: object }>} */
export const readWorkflow = (name) => request(`${address(name)}/workflow`);

/** The edit of a take as the text of an `.otio` file, and the file's name. @param {string} name */
export async function readTimeline(name) {
  const answer = await api.fetchApi(`${address(name)}/timeline`, { cache: "no-store" });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `${answer.status}`);
  const file = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "film.otio";
  return { file: decodeURIComponent(file), text: await answer.text() };
}

/** @param {string} name @param {number} shot @param {number} version @returns {Promise<Changed>} */
export const chooseVersion = (name, shot, version) => request(`${address(name)}/choose`, { shot, version });

/** @param {string} name @param {number} shot @param {boolean} locked @returns {Promise<Changed>} */
export const lockShot = (name, shot, locked) => request(`${address(name)}/lock`, { shot, locked });

/** Accepts the beginning of a shot, or of all. @param {string} name @param {number | null} shot @param {boolean} accepted @returns {Promise<Changed>} */
export const acceptShot = (name, shot, accepted) => request(`${address(name)}/accept`, { shot, accepted });

/**
 * Gives a shot a version with a fresh seed; nothing is sampled before the next run.
 *
 * @param {string} name
 * @param {number} shot
 * @param {"ripple" | "keep"} mode
 * @returns {Promise<Changed & { version: number }>}
 */
export const retakeShot = (name, shot, mode = "ripple") => request(`${address(name)}/retake`, { shot, mode });

/** @param {string} name @returns {Promise<Changed & { freed: number }>} */
export const pruneTake = (name) => request(`${address(name)}/prune`, {});

/** @param {string} name @returns {Promise<{ freed: number }>} */
export const deleteTake = (name) => request(`${address(name)}/delete`, {});
