// Registers the pack with the front-end, which loads this file. The nodes work without any of these scripts.
import { cast } from "./cast/mount.mjs";
import { errors } from "./errors.mjs";
import { api, app, loadWords } from "./host.mjs";
import { live } from "./live.mjs";
import { PLAYS, player } from "./player/mount.mjs";
import { prefixes } from "./prefixes.mjs";
import { sizes } from "./sizes.mjs";
import { strip } from "./strip/mount.mjs";
import { takeSettings } from "./takes/settings.mjs";
import { takes } from "./takes/tab.mjs";

const VERSION = "0.1.0"; // a test keeps it equal to pyproject.toml

const pack = {
  name: "LongLive",
  aboutPageBadges: [{ label: `LongLive v${VERSION}`, url: "https://arxiv.org/abs/2605.18739", icon: "pi pi-video" }],
  init: loadWords,
  setup() {
    // The front-end shows ui.PreviewText on ComfyUI's own nodes only: show ours as progress text.
    api.addEventListener("executed", ({ detail: { display_node, node, output } }) => {
      const id = display_node ?? node;
      const kind = app.graph.getNodeById(id)?.comfyClass;
      if (!output?.text?.length || !kind?.startsWith("LongLive") || kind === PLAYS) return;
      api.dispatchCustomEvent("progress_text", { nodeId: id, text: output.text.join("\n") });
    });
  },
};

for (const extension of [pack, sizes, prefixes, errors, live, strip, player, cast, takeSettings, takes])
  app.registerExtension(extension);
