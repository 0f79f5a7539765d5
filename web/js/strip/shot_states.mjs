// What is known of each shot's film, from the film that is made or from the newest take: states and pictures by number.

/**
 * @typedef {import("./cards.mjs").ShotState} ShotState
 * @typedef {{number: number, start: number, seconds: number}} Part
 *
 * @typedef {object} Changes what a run would make, as the server tells
 * @property {string} line as in `shots 3 to 5, 9 of 45 blocks, about 16 s`
 * @property {number} remade blocks
 * @property {number} new blocks
 * @property {{shot: number, state: "kept" | "restored" | "remade" | "new", version: number | null}[]} shots
 */

// Times of frames and of shots are rounded.
const SAME = 1e-3;

/**
 * States of the shots of a film that is made.
 *
 * @param {import("../types").Film} film
 * @param {Part[]} shots
 * @returns {Map<number, ShotState>}
 */
export function statesOfFilm(film, shots) {
  const made = film.fps ? film.frames / film.fps : 0;
  /** @param {Part} shot @returns {ShotState} */
  const stateOf = ({ start, seconds }) => {
    if (made >= start + seconds - SAME) return { state: "made" };
    if (made < start - SAME || film.state === "waiting") return { state: "waiting" };
    return { state: "making", progress: Math.min(1, (made - start) / seconds) };
  };
  return new Map(shots.map((shot) => [shot.number, stateOf(shot)]));
}

/**
 * States of the shots of a script, compared with a take.
 *
 * @param {Changes} changes
 * @param {import("../takes/routes.mjs").Take} take
 * @returns {Map<number, ShotState>}
 */
export function statesOfTake(changes, take) {
  return new Map(
    changes.shots.map(({ shot, state }) => [
      shot,
      {
        state: state === "kept" || state === "restored" ? "made" : "unmade",
        locked: take.shots[shot - 1]?.locked ?? false,
      },
    ]),
  );
}

/**
 * Addresses of pictures by number: of the versions that the film will have, or else of those that it has.
 *
 * @param {import("../takes/routes.mjs").Take} take
 * @param {Changes} [changes]
 * @returns {Map<number, string>}
 */
export function stillsOf(take, changes) {
  /** @type {Map<number, string>} */
  const stills = new Map();
  for (const { shot, chosen, versions } of take.shots) {
    const version = changes?.shots.find((change) => change.shot === shot)?.version ?? chosen;
    const still = versions[version]?.still;
    if (still) stills.set(shot, still);
  }
  return stills;
}
