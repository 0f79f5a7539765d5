// The script of a film in the making, changed from its LongLive ShotScript node: nodes/live.py is the other end.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const TAKES = "/longlive/takes";

// The ids of a node and of all that its outputs lead to.
function reached(node, found = new Set()) {
  if (!node || found.has(String(node.id))) return found;
  found.add(String(node.id));
  for (const output of node.outputs ?? [])
    for (const link of output.links ?? []) reached(node.graph.getNodeById(node.graph.links[link]?.target_id), found);
  return found;
}

function tell(severity, detail) {
  app.extensionManager.toast.add({ severity, summary: "LongLive", detail, life: 6000 });
}

async function send(node) {
  const films = await (await api.fetchApi(TAKES)).json();
  const ids = reached(node);
  // A film made in a subgraph has the ids of all the graphs that it lies in, as 12:5.
  const film =
    films.find(({ id }) => ids.has(id)) ?? films.find(({ id }) => id.split(":").some((part) => ids.has(part)));
  if (!film) return tell("warn", "No film of this script is being made: queue it.");
  const script = node.widgets.find(({ name }) => name === "script").value;
  const answer = await api.fetchApi(`${TAKES}/${film.id}/script`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ script, version: film.version }),
  });
  const said = await answer.json();
  if (!answer.ok) return tell("error", said.error);
  tell("success", `The film follows this script from shot ${said.begun + 1} on.`);
}

app.registerExtension({
  name: "LongLive.Live",
  getNodeMenuItems(node) {
    if (node.comfyClass !== "LongLiveShotScript") return [];
    return [null, { content: "Send script to the film in the making", callback: () => send(node) }];
  },
});
