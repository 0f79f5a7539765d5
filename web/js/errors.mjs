// Says why a run fails, where the front-end does not: muted shots before a run, the message of an error in it.
import { BYPASSED, MUTED } from "./graph.mjs";
import { api, app, notify, word } from "./host.mjs";

const FILM_INPUTS = ["stream", "state"];
// The front-end cuts its message of an error after three lines; one of ours has the remedy at its end.
const STYLE = `[data-testid="error-overlay-messages"] p { -webkit-line-clamp: 12; }`;

/** @param {import("./types").Node | null | undefined} node */
const isOurs = (node) => Boolean(node?.comfyClass?.startsWith("LongLive"));

/**
 * The node that an input is connected to, behind bypassed ones, if it is muted.
 *
 * @param {import("./types").Node | null} node
 * @param {string[]} names
 * @returns {import("./types").Node | undefined}
 */
function mutedBefore(node, names) {
  const id = node?.inputs.find(({ name }) => names.includes(name))?.link;
  const link = id == null ? undefined : node?.graph?.links[id];
  const before = link && node?.graph?.getNodeById(link.origin_id);
  if (before?.mode === BYPASSED) return mutedBefore(before, FILM_INPUTS);
  return before?.mode === MUTED ? before : undefined;
}

/** Names the muted nodes whose films other nodes need; the server only knows that an input is missing. */
function nameMuted() {
  for (const node of app.graph.nodes) {
    if (!isOurs(node) || node.mode === MUTED || node.mode === BYPASSED) continue;
    for (const input of Object.keys(node.constructor.nodeData?.input?.required ?? {})) {
      const muted = mutedBefore(node, [input]);
      if (muted) notify("warn", word("muted", { title: muted.title, id: muted.id, input }), node.title);
    }
  }
}

export const errors = {
  name: "LongLive.Errors",
  setup() {
    document.head.append(Object.assign(document.createElement("style"), { textContent: STYLE }));
    api.addEventListener("promptQueueing", nameMuted);
    // The front-end's message of an error while a node runs says that it failed, but not why.
    api.addEventListener("execution_error", ({ detail }) => {
      if (!detail.node_type?.startsWith("LongLive")) return;
      notify("error", detail.exception_message, app.graph.getNodeById(detail.node_id)?.title ?? detail.node_type);
      api.dispatchCustomEvent("progress_text", { nodeId: detail.node_id, text: detail.exception_message });
    });
  },
};
