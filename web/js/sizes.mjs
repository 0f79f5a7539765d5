// Sizes of new samplers: from the settings, then from the model that is connected. Says when a size is rounded.
import { app, notify } from "./host.mjs";

const NEW_SIZE = "LongLive.Sampler.NewSize";
/** @type {Record<string, [number, number]>} */
const SIZES = { "5B 1280x704": [1280, 704], "5B 832x480": [832, 480], "Mini 128x128": [128, 128] };
const SIZED = ["LongLiveStreamingSampler", "LongLiveShot", "LongLiveExtendVideo"];
/** @type {Record<string, string>} */
const MODEL_SIZES = { LongLiveMini: "Mini 128x128", LongLiveModelLoader: "5B 1280x704" };
const STEP = 32;

/** @param {import("./types").Node} node */
function sides(node) {
  return (node.widgets ?? []).filter(({ name }) => name === "width" || name === "height");
}

/** @param {import("./types").Node} node @param {[number, number]} size */
function setSize(node, size) {
  sides(node).forEach((widget, index) => (widget.value = size[index]));
}

/**
 * The first node of a chain of models, through LoRA loaders and other nodes with one MODEL input.
 *
 * @param {import("./types").Node} node
 * @returns {import("./types").Node}
 */
function modelLoader(node, seen = new Set()) {
  const link = node.inputs?.find(({ type }) => type === "MODEL")?.link;
  const origin = link == null ? undefined : node.graph?.links[link]?.origin_id;
  const before = origin === undefined ? null : node.graph?.getNodeById(origin);
  if (!before || seen.has(before.id)) return node;
  return modelLoader(before, seen.add(before.id));
}

/**
 * Sets the size of a new node, until the user does, to that of the model that is connected to it.
 *
 * @param {import("./types").Node} node
 * @param {[number, number]} size
 */
function followModel(node, size) {
  let own = size;
  const connected = node.onConnectionsChange;
  node.onConnectionsChange = function (...change) {
    connected?.apply(this, change);
    const wanted = SIZES[MODEL_SIZES[modelLoader(node).comfyClass]];
    const untouched = sides(node).every((widget, index) => widget.value === own[index]);
    if (!wanted || !untouched || app.configuringGraph) return;
    // Another size for the same model, of the settings, stays.
    if ((own[0] > 128) !== (wanted[0] > 128)) setSize(node, (own = wanted));
  };
}

/**
 * Says that a width or height was rounded. The front-end rounds it silently.
 *
 * @param {import("./types").Widget} widget
 */
function sayRounded(widget) {
  const { callback } = widget;
  widget.callback = (value, ...rest) => {
    const answer = callback?.call(widget, value, ...rest);
    if (Number.isFinite(value) && widget.value !== value)
      notify("info", `${widget.name} ${value} becomes ${widget.value}: sizes are multiples of ${STEP}.`);
    return answer;
  };
}

export const sizes = {
  name: "LongLive.Sizes",
  settings: [
    {
      id: NEW_SIZE,
      category: ["LongLive", "LongLiveSampler", "NewSize"],
      name: "Size of new samplers",
      tooltip:
        "Width and height that a LongLive Streaming Sampler, Shot or Extend Video starts with when it is added. A model that is connected then sets its own. Nodes in loaded workflows are not changed.",
      type: "combo",
      options: Object.keys(SIZES),
      defaultValue: "5B 1280x704",
    },
  ],
  /** @param {import("./types").Node} node */
  nodeCreated(node) {
    if (!SIZED.includes(node.comfyClass)) return;
    sides(node).forEach(sayRounded);
    // A workflow that is being loaded sets the values itself; a pasted node gets its values after this call.
    if (app.configuringGraph) return;
    const size = SIZES[app.extensionManager.setting.get(NEW_SIZE)] ?? SIZES["5B 1280x704"];
    setSize(node, size);
    followModel(node, size);
  },
};
