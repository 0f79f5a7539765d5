// Puts a strip of shots under the text of every LongLive ShotScript.
import { castOf } from "../cast/wired.mjs";
import { api, app, executionIds, fixedWidget, loadStyle, request, word, workflowId, writeWidget } from "../host.mjs";
import { FilmFollower } from "./follow.mjs";
import { Strip } from "./strip.mjs";

const HEIGHT = 262;
const MIDDLE = 1;

/** @param {import("../types").Node} node @param {string} name */
const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

/** @param {import("../types").Node} node @param {string} name */
const isWired = (node, name) => node.inputs?.find((input) => input.name === name)?.link != null;

/** @param {import("../types").Node} node @returns {import("./script.mjs").Script} */
function scriptOf(node) {
  return {
    read: () => ({
      script: String(widgetOf(node, "script")?.value ?? ""),
      fps: Number(widgetOf(node, "fps")?.value ?? 24),
      default_seconds: Number(widgetOf(node, "default_seconds")?.value ?? 4),
      cast: castOf(node),
    }),
    write: (text) => writeWidget(node, "script", text),
    wired: () => isWired(node, "script"),
    key: () => `${workflowId()}/${executionIds(node)[0] ?? node.id}`,
    request: (path, body) => request(path, body),
    url: (path) => api.apiURL(path),
    select(start, end) {
      const element = widgetOf(node, "script")?.element ?? document.querySelector(`[data-node-id="${node.id}"] textarea`);
      const text = element instanceof HTMLTextAreaElement ? element : element?.querySelector("textarea");
      text?.focus({ preventScroll: true });
      text?.setSelectionRange(start, end);
    },
  };
}

/**
 * Lets the middle button move the canvas and Ctrl with the wheel zoom it. In Nodes 2.0 they reach it by themselves, and
 * app mode has no canvas.
 *
 * @param {HTMLElement} element
 */
function forwardToCanvas(element) {
  const isClassic = () => element.closest(".dom-widget") !== null;
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== MIDDLE || !isClassic()) return;
    element.setPointerCapture(event.pointerId);
    app.canvas.processMouseDown(event);
  });
  element.addEventListener("pointermove", (event) => {
    if (event.buttons & 4 && isClassic()) app.canvas.processMouseMove(event);
  });
  element.addEventListener("pointerup", (event) => {
    if (event.button === MIDDLE && isClassic()) app.canvas.processMouseUp(event);
  });
  element.addEventListener("wheel", (event) => {
    if ((event.ctrlKey || event.metaKey) && isClassic()) app.canvas.processMouseWheel(event);
  });
}

/** @param {import("../types").Node} node */
function mount(node) {
  const strip = new Strip(scriptOf(node), word);
  const follower = new FilmFollower(node, strip);
  fixedWidget(node, "longlive_strip", strip.element, HEIGHT, word("strip_title"));
  forwardToCanvas(strip.element);
  for (const name of ["script", "fps", "default_seconds"]) {
    const widget = widgetOf(node, name);
    if (!widget) continue;
    const { callback } = widget;
    widget.callback = (value, ...rest) => {
      const answer = callback?.call(widget, value, ...rest);
      strip.changed();
      return answer;
    };
  }
  const { onAdded, onConfigure, onConnectionsChange, onRemoved } = node;
  node.onAdded = function (graph) {
    onAdded?.call(this, graph);
    queueMicrotask(() => strip.changed());
  };
  node.onConfigure = function (data) {
    onConfigure?.call(this, data);
    queueMicrotask(() => strip.changed());
  };
  node.onConnectionsChange = function (...change) {
    onConnectionsChange?.apply(this, change);
    queueMicrotask(() => strip.changed());
  };
  node.onRemoved = function () {
    onRemoved?.call(this);
    strip.dispose();
    follower.dispose();
  };
}

export const strip = {
  name: "LongLive.Strip",
  setup() {
    loadStyle("strip/strip.css");
  },
  /** @param {import("../types").Node} node */
  nodeCreated(node) {
    if (node.comfyClass === "LongLiveShotScript") mount(node);
  },
};
