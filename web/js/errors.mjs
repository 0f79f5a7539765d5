// Shows what our nodes refuse: once, in the message of the front-end and on the node.
import { api, app } from "./host.mjs";

const REJECTED = "custom_validation_failed";
// Of this kind of error the front-end's message has the whole text; of REJECTED it has only the node's name.
const WITH_TEXT = "exception_during_validation";
const MISSING = "required_input_missing";
const MUTED = 2;
const BYPASSED = 4;
const FILM_INPUTS = ["stream", "state"];
// The front-end's message ends after three lines; one of ours has the remedy at its end.
const WHOLE = "longlive-error";
const STYLE = `.${WHOLE} [data-testid="error-overlay-messages"] p { -webkit-line-clamp: none; }`;

/** @param {string} nodeId @param {string} text */
function showOnNode(nodeId, text) {
  api.dispatchCustomEvent("progress_text", { nodeId, text });
}

/**
 * The node that an input is connected to, behind bypassed ones, if it is muted.
 *
 * @param {import("./types").Node | null} node
 * @param {(string | undefined)[]} names
 * @returns {import("./types").Node | undefined}
 */
function mutedBefore(node, names) {
  const id = node?.inputs.find(({ name }) => names.includes(name))?.link;
  const link = id == null ? undefined : node?.graph?.links[id];
  const before = link && node?.graph?.getNodeById(link.origin_id);
  if (before?.mode === BYPASSED) return mutedBefore(before, FILM_INPUTS);
  return before?.mode === MUTED ? before : undefined;
}

/** @param {string} nodeId @param {import("./types").PromptError} error */
function explained(nodeId, error) {
  const input = error.extra_info?.input_name;
  if (error.type === REJECTED) {
    // The host puts the input's name before the text.
    return { ...error, type: WITH_TEXT, details: error.details.replace(`${input} - `, "") };
  }
  const muted = error.type === MISSING && mutedBefore(app.graph.getNodeById(nodeId), [input]);
  if (!muted) return error;
  const details = `${muted.title} (node ${muted.id}) is muted, so there is no ${input}: bypass it (Ctrl+B) instead`;
  return { ...error, type: WITH_TEXT, message: details, details };
}

/**
 * The host repeats an error for every input that was checked.
 *
 * @param {import("./types").PromptError[]} errors
 */
function once(errors) {
  return errors.filter(({ details }, index) => errors.findIndex((error) => error.details === details) === index);
}

/** @param {Record<string, import("./types").NodeErrors> | undefined} nodeErrors */
function explain(nodeErrors) {
  const own = Object.entries(nodeErrors ?? {}).filter(([, { class_type }]) => class_type?.startsWith("LongLive"));
  document.body.classList.toggle(WHOLE, own.length > 0);
  for (const [nodeId, entry] of own) {
    entry.errors = once(entry.errors.map((error) => explained(nodeId, error)));
    showOnNode(nodeId, entry.errors.map(({ details }) => details).join("\n"));
  }
}

export const errors = {
  name: "LongLive.Errors",
  setup() {
    document.head.append(Object.assign(document.createElement("style"), { textContent: STYLE }));
    const { queuePrompt } = api;
    api.queuePrompt = (...request) => {
      const answer = queuePrompt.apply(api, request);
      answer.then(
        ({ node_errors }) => explain(node_errors),
        ({ response }) => explain(response?.node_errors),
      );
      return answer; // with the handlers above, which run before those of the caller
    };
    // The front-end's message of an error while a node runs says that it failed, but not why.
    api.addEventListener("execution_error", ({ detail }) => {
      if (!detail.node_type?.startsWith("LongLive")) return;
      const title = app.graph.getNodeById(detail.node_id)?.title ?? detail.node_type;
      app.extensionManager.toast.add({ severity: "error", summary: title, detail: detail.exception_message, life: 20000 });
      showOnNode(detail.node_id, detail.exception_message);
    });
  },
};
