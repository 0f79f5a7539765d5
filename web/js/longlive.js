// Settings and the about page of the pack. The nodes work without this script.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const VERSION = "0.1.0"; // a test keeps it equal to pyproject.toml
const NEW_SIZE = "LongLive.Sampler.NewSize";
const SIZES = { "5B 1280x704": [1280, 704], "5B 832x480": [832, 480], "Mini 128x128": [128, 128] };
const SIZED = ["LongLiveStreamingSampler", "LongLiveShot", "LongLiveExtendVideo"];

app.registerExtension({
  name: "LongLive",
  settings: [
    {
      id: NEW_SIZE,
      category: ["LongLive", "LongLiveSampler", "NewSize"],
      name: "Size of new samplers",
      tooltip:
        "Width and height that a LongLive Streaming Sampler, Shot or Extend Video starts with when it is added. Nodes in loaded workflows are not changed.",
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
    // A workflow that is being loaded sets the values itself; a pasted node gets its values after this call.
    if (!SIZED.includes(node.comfyClass) || app.configuringGraph) return;
    const [width, height] = SIZES[app.extensionManager.setting.get(NEW_SIZE)] ?? SIZES["5B 1280x704"];
    for (const widget of node.widgets ?? []) {
      if (widget.name === "width") widget.value = width;
      if (widget.name === "height") widget.value = height;
    }
  },
});
