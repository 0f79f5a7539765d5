// The one module that knows ComfyUI's front-end: its app and api, widgets, messages, words in the user's language.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { fill } from "./text.mjs";

export { api, app };

/** Height that the front-end adds around the element of a widget, in pixels. */
const MARGIN = 20;
let instances = 0;

/**
 * Adds an element to a node as a widget of fixed height that workflow files and prompts leave out.
 *
 * It must be the node's last widget, because values in workflow files are positional. Its type is unique, because
 * Nodes 2.0 keeps the element of a removed widget of the same type after an undo.
 *
 * @param {import("./types").Node} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {number} height of the element, in pixels
 * @param {string} label shown in app mode
 */
export function fixedWidget(node, name, element, height, label) {
  const type = `${name}#${++instances}`;
  const widget = node.addDOMWidget(name, type, element, { serialize: false, hideOnZoom: false });
  widget.serialize = false; // in workflow files; the option above is for prompts
  widget.label = label;
  widget.computeLayoutSize = undefined; // otherwise Nodes 2.0 lets the widget grow with the node
  widget.computeSize = (width) => [width ?? 0, height + MARGIN];
  element.style.minHeight = element.style.maxHeight = `${height}px`;
  return widget;
}

/**
 * Sets the value of a node's widget as one step of undo.
 *
 * @param {import("./types").Node} node
 * @param {string} name
 * @param {unknown} value
 */
export function writeWidget(node, name, value) {
  const widget = node.widgets?.find((widget) => widget.name === name);
  if (!widget) return;
  app.canvas.emitBeforeChange();
  widget.value = value;
  widget.callback?.(value);
  app.canvas.emitAfterChange();
}

/**
 * Ids that a node has in prompts, as in `12:5` inside a subgraph: one for each instance of the subgraph.
 *
 * @param {import("./types").Node} node
 * @returns {string[]}
 */
export function executionIds(node) {
  /** @type {string[]} */
  const found = [];
  /** @param {import("./types").Graph} graph @param {string} path */
  const visit = (graph, path) => {
    if (graph === node.graph) found.push(`${path}${node.id}`);
    for (const inner of graph.nodes) if (inner.subgraph) visit(inner.subgraph, `${path}${inner.id}:`);
  };
  if (node.graph) visit(node.graph.rootGraph ?? node.graph, "");
  return found;
}

/** Id of the workflow that is open; copies of a template share it. @returns {string} */
export function workflowId() {
  return app.rootGraph?.id ?? app.graph.id ?? "";
}

/** @param {"success" | "info" | "warn" | "error"} severity @param {string} detail @param {string} [summary] */
export function notify(severity, detail, summary = "LongLive") {
  app.extensionManager.toast.add({ severity, summary, detail, life: severity === "error" ? 20000 : 6000 });
}

/** Words by language and key, from locales/<language>/main.json. @type {Record<string, Record<string, string>>} */
const words = {};
let language = "en";

/** Loads the words of the pack and follows the front-end's language; call it once, before nodes are created. */
export async function loadWords() {
  const locales = await api.getCustomNodesI18n();
  for (const [name, locale] of Object.entries(locales)) words[name] = locale.longlive ?? {};
  const follow = () => {
    language = String(app.extensionManager.setting.get("Comfy.Locale") ?? "en");
  };
  follow();
  app.ui.settings.addEventListener("Comfy.Locale.change", follow);
}

/**
 * The text of a key in the user's language, or else in English, with `{name}` replaced by values.
 *
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export function word(key, values = {}) {
  return fill(words[language]?.[key] ?? words.en?.[key] ?? key, values);
}

/**
 * Sends JSON to a route of the server and returns its JSON; throws an Error with the server's message.
 *
 * @param {string} path such as `/longlive/script`
 * @param {object} [body] makes the request a POST
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function request(path, body, signal) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await api.fetchApi(path, { ...(body === undefined ? { cache: "no-store" } : post), signal });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error ?? `${path}: ${answer.status}`);
  return content;
}

/** Loads a style sheet of this folder once. @param {string} name such as `strip/strip.css` */
export function loadStyle(name) {
  const href = new URL(name, import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href }));
}

// Events after which a prompt is over.
const ENDS = ["execution_success", "execution_interrupted", "execution_error", "reconnected"];

/**
 * Calls `told` whenever a prompt ends, with its id; without one after a lost connection. Returns how to stop that.
 *
 * @param {(prompt: string | undefined) => void} told
 */
export function onPromptEnd(told) {
  /** @param {CustomEvent<any>} event */
  const ended = ({ detail }) => told(detail?.prompt_id);
  for (const type of ENDS) api.addEventListener(type, ended);
  return () => {
    for (const type of ENDS) api.removeEventListener(type, ended);
  };
}
