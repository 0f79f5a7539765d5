// Nodes of the canvas that a node's output goes to.

/** @typedef {import("./types").Node} Node */

/**
 * A node and every node of its graph downstream of it.
 *
 * @param {Node | null | undefined} node
 * @param {Set<Node>} [found]
 * @returns {Set<Node>}
 */
export function downstream(node, found = new Set()) {
  if (!node || found.has(node)) return found;
  found.add(node);
  for (const output of node.outputs ?? [])
    for (const link of output.links ?? []) downstream(node.graph?.getNodeById(node.graph.links[link]?.target_id), found);
  return found;
}
