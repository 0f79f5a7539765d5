// Replaces %date:…% and %Node.widget% in names of files, as the front-end does in its own nodes such as Save Video.
import { app } from "./host.mjs";

/** @type {Record<string, string>} */
const PREFIXES = { LongLiveAsyncDecode: "filename_prefix", LongLiveSaveTake: "name_prefix" };

export const prefixes = {
  name: "LongLive.Prefixes",
  /** @param {import("./types").Node} node */
  nodeCreated(node) {
    const widget = node.widgets?.find(({ name }) => name === PREFIXES[node.comfyClass]);
    if (!widget) return;
    // Without the front-end's function, the server replaces the dates.
    widget.serializeValue = () => window.comfyAPI?.utils?.applyTextReplacements?.(app, widget.value) ?? widget.value;
  },
};
