// Sends a changed script from a LongLive ShotScript node to the film that is running.
import { downstream } from "./graph.mjs";
import { api, notify, request, word, workflowId } from "./host.mjs";

const FILMS = "/longlive/films";

/**
 * Sends the script of a node to the film that is made of it, and says from which shot on the film follows it.
 *
 * @param {import("./types").Node} node
 */
export async function sendScript(node) {
  const query = new URLSearchParams({ client: api.clientId ?? "", workflow: workflowId() });
  /** @type {import("./types").Film[]} */
  const films = await request(`${FILMS}?${query}`);
  const scripts = films.flatMap(({ key, scripts }) => (scripts ?? []).map((script) => ({ key, ...script })));
  const ids = new Set([...downstream(node)].map(({ id }) => String(id)));
  // The id of a node inside subgraphs is the path of ids to it, as in 12:5.
  const script =
    scripts.find(({ node }) => ids.has(node)) ??
    scripts.find(({ node }) => node.split(":").some((part) => ids.has(part)));
  if (!script) return notify("warn", word("live_none"));
  const body = { script: node.widgets?.find(({ name }) => name === "script")?.value, version: script.version };
  try {
    const { begun } = await request(`${FILMS}/${script.key}/script?${new URLSearchParams({ node: script.node })}`, body);
    notify("success", word("live_sent", { shot: begun + 1 }));
  } catch (error) {
    notify("error", error instanceof Error ? error.message : String(error));
  }
}

export const live = {
  name: "LongLive.Live",
  /** @param {import("./types").Node} node */
  getNodeMenuItems(node) {
    if (node.comfyClass !== "LongLiveShotScript") return [];
    return [null, { content: word("live_send"), callback: () => sendScript(node) }];
  },
};
