// Shows on a LongLive Cast what is in its file: the picture, the name, the prompt and the film that it is from.
import { make } from "../dom.mjs";
import { api, fixedWidget, loadStyle, request, word } from "../host.mjs";

const KIND = "LongLiveCast";
const HEIGHT = 128;

/** @param {import("../types").Node} node */
function mount(node) {
  const element = make("div", { className: "longlive-cast", role: "group", "aria-label": word("cast_title") });
  const file = node.widgets?.find(({ name }) => name === "cast_name");
  /** @type {string | undefined} */
  let shown;

  const show = async () => {
    const wanted = String(file?.value ?? "");
    if (wanted === shown) return;
    shown = wanted;
    element.replaceChildren(...(await cardOf(wanted)));
  };
  if (file) {
    const { callback } = file;
    file.callback = (value, ...rest) => {
      const answer = callback?.call(file, value, ...rest);
      show();
      return answer;
    };
  }
  fixedWidget(node, "longlive_cast", element, HEIGHT, word("cast_title"));
  const { onAdded, onConfigure } = node;
  node.onAdded = function (graph) {
    onAdded?.call(this, graph);
    queueMicrotask(show);
  };
  node.onConfigure = function (data) {
    onConfigure?.call(this, data);
    queueMicrotask(show);
  };
}

/** What stands in the node for a file. @param {string} file @returns {Promise<Node[]>} */
async function cardOf(file) {
  if (!file || file === "undefined") return [make("p", { className: "ll-none" }, word("cast_none"))];
  try {
    const { name, prompt, origin, still } = await request(`/longlive/casts?file=${encodeURIComponent(file)}`);
    const picture = still
      ? make("img", { src: api.apiURL(still), alt: word("cast_picture", { name }), draggable: false })
      : make("span", { className: "ll-none" }, word("cast_no_picture"));
    const words = make(
      "div",
      { className: "ll-words" },
      make("b", {}, `@recall=${name}`),
      make("span", { title: prompt }, prompt),
      make("small", { title: origin }, origin),
    );
    return [picture, words];
  } catch (error) {
    return [make("p", { className: "ll-none", role: "alert" }, error instanceof Error ? error.message : String(error))];
  }
}

export const cast = {
  name: "LongLive.Cast",
  setup() {
    loadStyle("cast/cast.css");
  },
  /** @param {import("../types").Node} node */
  nodeCreated(node) {
    if (node.comfyClass === KIND) mount(node);
  },
};
