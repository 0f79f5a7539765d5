// The cast files that are wired to a script, as the server reads them: [file, name in the script or ""].
import { BYPASSED, MUTED } from "../graph.mjs";

/** @typedef {import("../types").Node} Node */

const CAST = "LongLiveCast";
const SAVE = "LongLiveSaveCast";

/**
 * The files in the order of a chain of LongLive Cast; a bypassed one passes on those before it, and nothing comes from
 * a bypassed LongLive Save Cast.
 *
 * @param {Node} node with an input `cast`
 * @param {Set<Node>} [seen]
 * @returns {[string, string][]}
 */
export function castOf(node, seen = new Set()) {
  const link = node.inputs?.find(({ name }) => name === "cast")?.link;
  const origin = link == null ? null : node.graph?.getNodeById(node.graph.links[link]?.origin_id ?? -1);
  if (!origin || seen.has(origin) || origin.mode === MUTED) return [];
  seen.add(origin);
  const before = castOf(origin, seen);
  if (origin.mode === BYPASSED) return before;
  const name = String(valueOf(origin, "name") ?? "").trim();
  if (origin.comfyClass === SAVE) return [[`${name}.cast.safetensors`, name]];
  if (origin.comfyClass !== CAST) return before;
  return [...before, [String(valueOf(origin, "cast_name") ?? ""), name]];
}

/** @param {Node} node @param {string} name */
function valueOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)?.value;
}
