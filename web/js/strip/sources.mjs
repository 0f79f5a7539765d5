// What a film is made from beside its script: settings of its sampler, and the nodes that lead there (nodes/sources.py).

/** @typedef {import("../types").Node} Node */

const SCRIPT = "LongLiveShotScript";
const RANKS = "LongLiveMultiGPU"; // a film is the same on any number of GPUs
/** What the front-end does with a seed after a run: AFTER_RUN of nodes/sources.py. */
const AFTER_RUN = ["fixed", "increment", "decrement", "randomize"];
/** Widgets of the sampler that are settings of a take by the same name. */
const SETTINGS = ["seed", "steps", "guidance"];

/**
 * Settings of a sampler by the names that a take has; those that come over a wire are not known here.
 *
 * @param {Node} sampler
 * @returns {Record<string, string | number>}
 */
export function settingsOf(sampler) {
  /** @param {string} name */
  const value = (name) => {
    const wired = sampler.inputs?.find((input) => input.name === name)?.link != null;
    return wired ? undefined : sampler.widgets?.find((widget) => widget.name === name)?.value;
  };
  const found = SETTINGS.map((name) => [name, value(name)]);
  const [width, height, seam] = [value("width"), value("height"), value("seam")];
  if (width !== undefined && height !== undefined) found.push(["size", `${height}x${width}`]);
  if (seam !== "auto") found.push(["seam", seam]); // the model decides
  return Object.fromEntries(found.filter(([, value]) => value !== undefined));
}

/**
 * The nodes that lead to a sampler in its own graph, as [type, mode, values of the widgets].
 *
 * @param {Node} sampler
 * @returns {[string, number, unknown][]}
 */
export function sourcesOf(sampler) {
  const seen = new Set([sampler]);
  /** @param {Node} node @returns {[string, number, unknown][]} */
  const before = (node) =>
    (node.inputs ?? []).flatMap(({ link }) => {
      const links = node.graph?.links;
      const origin = link == null ? null : node.graph?.getNodeById(links?.[link]?.origin_id ?? -1);
      if (!origin || seen.has(origin) || origin.type === SCRIPT) return [];
      seen.add(origin);
      if (origin.type === RANKS) return before(origin);
      return [[origin.type, origin.mode ?? 0, valuesOf(origin)], ...before(origin)];
    });
  return before(sampler);
}

/** @param {Node} node */
function valuesOf(node) {
  const values = node.serialize().widgets_values;
  if (!Array.isArray(values)) return values ?? null;
  return values.filter((value) => value != null && !AFTER_RUN.includes(value));
}
