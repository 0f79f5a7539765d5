import assert from "node:assert/strict";
import { test } from "node:test";
import { settingsOf, sourcesOf } from "../../web/js/strip/sources.mjs";

const widgets = Object.entries({ seed: 3, width: 64, height: 32, steps: 4, guidance: 1, seam: "auto" }).map(([name, value]) => ({ name, value }));

test("the settings of a sampler have the names of a take; what comes over a wire is left out", () => {
  assert.deepEqual(settingsOf({ widgets }), { seed: 3, steps: 4, guidance: 1, size: "32x64" });
  const inputs = [{ name: "seed", link: 7 }, { name: "width", link: null }, { name: "height", link: 8 }];
  assert.deepEqual(settingsOf({ widgets, inputs }), { steps: 4, guidance: 1 });
  assert.equal(settingsOf({ widgets: [{ name: "seam", value: "align" }] }).seam, "align");
});

/** A graph of nodes by id: [type, values, ids of the nodes that its inputs come from]. */
function graph(content) {
  const made = { links: {}, getNodeById: (id) => nodes[id] ?? null };
  const nodes = Object.fromEntries(
    Object.entries(content).map(([id, [type, values, from = []]]) => {
      const inputs = from.map((origin) => {
        const link = Object.keys(made.links).length + 1;
        made.links[link] = { origin_id: origin };
        return { link };
      });
      return [id, { type, mode: 0, inputs: [{ link: null }, ...inputs], graph: made, serialize: () => ({ widgets_values: values }) }];
    }),
  );
  return nodes;
}

test("the sources are the nodes that lead to the sampler, each once and without the script", () => {
  const nodes = graph({
    1: ["Loader", ["a.safetensors", null]],
    2: ["LongLiveShotScript", ["Shot 1"], [9]],
    3: ["Encode", ["", "randomize"], [1, 2]],
    4: ["Sampler", [1, "fixed"], [1, 3, 1, -10]],
    9: ["Text", ["Shot 1"]],
  });
  assert.deepEqual(sourcesOf(nodes[4]), [["Loader", 0, ["a.safetensors"]], ["Encode", 0, [""]]]);
});

test("the number of GPUs is no source, and what leads to it is", () => {
  const nodes = graph({
    1: ["Loader", ["a.safetensors", null]],
    2: ["LongLiveMultiGPU", ["2", true], [1]],
    4: ["Sampler", [1, "fixed"], [2]],
  });
  assert.deepEqual(sourcesOf(nodes[4]), [["Loader", 0, ["a.safetensors"]]]);
});
