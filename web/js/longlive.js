// Settings and the about page of the pack. The nodes work without this script.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const VERSION = "0.1.0"; // a test keeps it equal to pyproject.toml
const NEW_SIZE = "LongLive.Sampler.NewSize";
const SIZES = { "5B 1280x704": [1280, 704], "5B 832x480": [832, 480], "Mini 128x128": [128, 128] };
const SIZED = ["LongLiveStreamingSampler", "LongLiveShot", "LongLiveExtendVideo"];
const MODEL_SIZES = { LongLiveMini: "Mini 128x128", LongLiveModelLoader: "5B 1280x704" };
const STEP = 32;

function sides(node) {
  return ["width", "height"].map((side) => node.widgets?.find(({ name }) => name === side));
}

function setSize(node, size) {
  sides(node).forEach((widget, index) => (widget.value = size[index]));
}

// The first node of a chain of models, through LoRA loaders and other nodes with one MODEL input.
function modelLoader(node, seen = new Set()) {
  const input = node.inputs?.find(({ type }) => type === "MODEL");
  const origin = input && node.graph?.links[input.link]?.origin_id;
  const before = origin !== undefined && node.graph.getNodeById(origin);
  if (!before || seen.has(before.id)) return node;
  return modelLoader(before, seen.add(before.id));
}

// Sets the size of a new node, until the user does, to that of the model that is connected to it.
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

// Says that a width or height was rounded. The front-end rounds it silently.
function sayRounded(widget) {
  const { callback } = widget;
  widget.callback = (value, ...rest) => {
    const answer = callback?.call(widget, value, ...rest);
    if (Number.isFinite(value) && widget.value !== value)
      app.extensionManager.toast.add({
        severity: "info",
        summary: "LongLive",
        detail: `${widget.name} ${value} becomes ${widget.value}: sizes are multiples of ${STEP}.`,
        life: 6000,
      });
    return answer;
  };
}

app.registerExtension({
  name: "LongLive",
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
  aboutPageBadges: [{ label: `LongLive v${VERSION}`, url: "https://arxiv.org/abs/2605.18739", icon: "pi pi-video" }],
  setup() {
    // The front-end shows ui.PreviewText on ComfyUI's own nodes only: show ours as progress text.
    api.addEventListener("executed", ({ detail: { display_node, node, output } }) => {
      const id = display_node ?? node;
      if (!output?.text?.length || !app.graph.getNodeById(id)?.comfyClass?.startsWith("LongLive")) return;
      api.dispatchCustomEvent("progress_text", { nodeId: id, text: output.text.join("\n") });
    });
  },
  nodeCreated(node) {
    if (!SIZED.includes(node.comfyClass)) return;
    sides(node).forEach(sayRounded);
    // A workflow that is being loaded sets the values itself; a pasted node gets its values after this call.
    if (app.configuringGraph) return;
    const size = SIZES[app.extensionManager.setting.get(NEW_SIZE)] ?? SIZES["5B 1280x704"];
    setSize(node, size);
    followModel(node, size);
  },
});
