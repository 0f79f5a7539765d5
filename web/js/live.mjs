// Sends a changed script from a LongLive ShotScript node to the film that is running.
import { api, notify } from "./host.mjs";

const TAKES = "/longlive/takes";

/**
 * Ids of a node and of every node downstream of it.
 *
 * @param {import("./types").Node | null | undefined} node
 * @returns {Set<string>}
 */
function downstream(node, found = new Set()) {
  if (!node || found.has(String(node.id))) return found;
  found.add(String(node.id));
  for (const output of node.outputs ?? [])
    for (const link of output.links ?? []) downstream(node.graph?.getNodeById(node.graph.links[link]?.target_id), found);
  return found;
}

/** @param {import("./types").Node} node */
async function send(node) {
  /** @type {{ id: string, version: number }[]} */
  const films = await (await api.fetchApi(TAKES)).json();
  const ids = downstream(node);
  // The id of a node inside subgraphs is the path of ids to it, as in 12:5.
  const film =
    films.find(({ id }) => ids.has(id)) ?? films.find(({ id }) => id.split(":").some((part) => ids.has(part)));
  if (!film) return notify("warn", "No film with this script is running. Queue the workflow first.");
  const script = node.widgets?.find(({ name }) => name === "script")?.value;
  const answer = await api.fetchApi(`${TAKES}/${film.id}/script`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ script, version: film.version }),
  });
  const state = await answer.json();
  if (!answer.ok) return notify("error", state.error);
  notify("success", `The film uses this script from shot ${state.begun + 1} on.`);
}

export const live = {
  name: "LongLive.Live",
  /** @param {import("./types").Node} node */
  getNodeMenuItems(node) {
    if (node.comfyClass !== "LongLiveShotScript") return [];
    return [null, { content: "Send script to the running film", callback: () => send(node) }];
  },
};
