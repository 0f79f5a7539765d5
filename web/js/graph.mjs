// Nodes of the canvas that a node's output goes to when the graph is run.

/** @typedef {import("./types").Node} Node */
/** @typedef {import("./types").Slot} Slot */

export const MUTED = 2;
export const BYPASSED = 4;
const SCRIPT = "LongLiveShotScript";

/**
 * A node and the nodes of its graph downstream of it that are run. Another script begins another film, as behind a
 * LongLive Save Cast. Nothing comes through a muted node, and through a bypassed one what the front-end connects.
 *
 * @param {Node | null | undefined} node
 * @returns {Set<Node>}
 */
export function downstream(node) {
  /** @type {Set<Node>} */
  const found = new Set();
  if (!node?.graph) return found;
  found.add(node);
  const links = new Set((node.outputs ?? []).flatMap(({ links }) => links ?? []));
  for (const id of links) {
    const link = node.graph.links[id]; // the set grows while it is walked
    const next = link && node.graph.getNodeById(link.target_id);
    if (!next || next.mode === MUTED || next.comfyClass === SCRIPT) continue;
    if (next.mode !== BYPASSED) found.add(next);
    for (const [slot, output] of (next.outputs ?? []).entries())
      if (next.mode !== BYPASSED || bypassInput(next, slot) === link.target_slot) for (const on of output.links ?? []) links.add(on);
  }
  return found;
}

/** The input that an output of a bypassed node is replaced by, or -1. @param {Node} node @param {number} slot */
function bypassInput({ inputs, outputs }, slot) {
  /** @param {Slot | undefined} input */
  const fits = (input) => input !== undefined && sharesType(input.type, outputs[slot].type);
  return fits(inputs[slot]) ? slot : inputs.findIndex(fits);
}

/** Whether slots of these types connect. @param {string} one such as `LONGLIVE_STREAM,LONGLIVE_STATE` @param {string} other */
function sharesType(one, other) {
  const types = String(one).split(","); // the type of a slot for everything may be a number
  return one === "*" || other === "*" || String(other).split(",").some((type) => types.includes(type));
}
