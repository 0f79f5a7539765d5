// What is known of each shot's film, from the film that is made or from the newest take: states and pictures by number.

/**
 * @typedef {import("./cards.mjs").ShotState} ShotState
 * @typedef {{number: number, start: number, seconds: number}} Part
 *
 * @typedef {object} Changes what a run would make, as the server tells
 * @property {string} line as in `shots 3 to 5, 9 of 45 blocks, about 16 s`
 * @property {number} remade blocks
 * @property {number} new blocks
 * @property {boolean} another_film whether the script is of another film than the take
 * @property {ShotChange[]} shots
 *
 * @typedef {object} ShotChange
 * @property {number} shot
 * @property {"kept" | "restored" | "remade" | "new"} state
 * @property {number | null} version of the film that it will be
 * @property {number | null} [source] the shot of the take that has its first block
 * @property {boolean} [board] whether that block is one of the storyboard
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
    changes.shots.map((change) => {
      const { shot, state, source, board } = change;
      const isWhole = state === "kept" || state === "restored";
      /** @type {ShotState["state"]} */
      const now = board && !(isWhole && take.film) ? "board" : isWhole ? "made" : "unmade";
      const was = changes.another_film && source === null ? undefined : take.shots[(source ?? shot) - 1];
      const locked = was?.locked ?? false;
      return [shot, { state: now, locked, accepted: now === "board" && Boolean(versionOf(change, changes, take)?.accepted) }];
    }),
  );
}

/**
 * The version of the take that a shot will begin with; for one that is not made yet, the version that is there now.
 *
 * @param {ShotChange} change
 * @param {Changes} changes
 * @param {import("../takes/routes.mjs").Take} take
 */
function versionOf({ shot, version, source }, { another_film: other }, take) {
  if (other && source === null) return undefined;
  const from = take.shots[(source ?? shot) - 1];
  return from?.versions[other ? from.chosen : (version ?? from.chosen)];
}

/**
 * States of the shots while a storyboard is made: what is there stays, the others wait.
 *
 * @param {import("../types").Film} film of the storyboard
 * @param {Part[]} shots
 * @param {Map<number, ShotState>} known states that the take has
 * @param {Map<number, string>} stills
 * @returns {Map<number, ShotState>}
 */
export function statesOfBoard(film, shots, known, stills) {
  /** @param {number} number @returns {ShotState} */
  const stateOf = (number) => {
    const state = known.get(number);
    if (state?.state === "made" || (state?.state === "board" && stills.has(number))) return state;
    return { state: number <= film.shot ? "making" : "waiting" };
  };
  return new Map(shots.map(({ number }) => [number, stateOf(number)]));
}

/**
 * Addresses of pictures by number: of the versions that the film will have, or else of those that it has. Where settings
 * make it another film, a shot shows what the same text was before.
 *
 * @param {import("../takes/routes.mjs").Take} take
 * @param {Changes} [changes]
 * @param {{number: number, text: string}[]} [written] the shots of the script
 * @returns {Map<number, string>}
 */
export function stillsOf(take, changes, written = []) {
  const texts = new Map(written.map(({ number, text }) => [number, text]));
  /** @param {ShotChange} change */
  const before = ({ shot }) => {
    const was = now[shot - 1]?.version;
    return texts.has(shot) && was?.text === texts.get(shot) ? was : undefined;
  };
  /** @type {Map<number, string>} */
  const stills = new Map();
  const now = take.shots.map(({ shot, chosen, versions }) => ({ shot, version: versions[chosen] }));
  const shown = changes?.shots.map((change) => ({ shot: change.shot, version: versionOf(change, changes, take) ?? before(change) }));
  for (const { shot, version } of shown ?? now) if (version?.still) stills.set(shot, version.still);
  return stills;
}
