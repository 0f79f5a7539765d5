// What the cards say of the continuity of their shots, by the report that the server makes of the film.

/** @typedef {import("../takes/routes.mjs").ShotScore} ShotScore */
/** @typedef {import("./script.mjs").Word} Word */

/** @type {Record<string, string>} */
const REASONS = {
  identity: "continuity_identity",
  place: "continuity_place",
  colour: "continuity_colour",
  seam: "continuity_seam",
  cut: "continuity_cut",
};

/**
 * The states of shots with the scores of those that are made.
 *
 * @param {Map<number, import("./cards.mjs").ShotState>} states
 * @param {import("../takes/routes.mjs").Continuity} report
 * @returns {Map<number, import("./cards.mjs").ShotState>}
 */
export function withContinuity(states, { shots }) {
  const scores = new Map(shots.map((score) => [score.shot, score]));
  /** @param {[number, import("./cards.mjs").ShotState]} entry @returns {[number, import("./cards.mjs").ShotState]} */
  const scored = ([number, state]) => [number, state.state === "made" ? { ...state, continuity: scores.get(number) } : state];
  return new Map([...states].map(scored));
}

/**
 * Asks for a report until there is one: the server measures no film while it makes others.
 *
 * @param {() => Promise<import("../takes/routes.mjs").Continuity>} read
 * @param {() => boolean} isWanted
 * @param {() => Promise<unknown>} pause before it is asked again
 * @returns {Promise<import("../takes/routes.mjs").Continuity | undefined>} undefined once it is not wanted
 */
export async function whenMeasured(read, isWanted, pause) {
  let report = await read();
  while (report.waiting && isWanted()) {
    await pause();
    if (isWanted()) report = await read();
  }
  return isWanted() ? report : undefined;
}

/**
 * The score in words, with the reason of each low measure.
 *
 * @param {ShotScore} score
 * @param {Word} word
 */
export function continuityText({ score, faults }, word) {
  /** @param {import("../takes/routes.mjs").Fault} fault */
  const others = ({ shots, files }) =>
    [
      ...shots.map((shot) => word("continuity_shot", { shot })),
      ...files.map((file) => word("continuity_file", { file })),
    ].join(", ");
  /** @param {import("../takes/routes.mjs").Fault} fault */
  const reason = (fault) => {
    const key = fault.measure === "cut" && !fault.cut ? "continuity_no_cut" : REASONS[fault.measure];
    return word(key ?? fault.measure, { others: others(fault) });
  };
  const [first, ...rest] = [word("continuity", { score: score.toFixed(2) }), ...faults.map(reason)];
  return rest.length ? `${first}: ${rest.join("; ")}` : first;
}
