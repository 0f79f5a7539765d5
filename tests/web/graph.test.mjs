import assert from "node:assert/strict";
import { test } from "node:test";
import { castOf } from "../../web/js/cast/wired.mjs";
import { downstream } from "../../web/js/graph.mjs";

const [RUN, MUTED, BYPASSED] = [0, 2, 4];
const FILM = "LONGLIVE_STREAM,LONGLIVE_STATE";

/** Kinds of nodes: inputs as [name, type], and types of outputs. */
const KINDS = {
  LongLiveCast: [[["cast_name", "COMBO"], ["cast", "CAST"]], ["CAST"]],
  LongLiveShotScript: [[["cast", "CAST"]], ["SHOTS"]],
  LongLiveStreamingSampler: [[["shots", "SHOTS"]], ["LONGLIVE_STREAM", "LONGLIVE_STATE"]],
  LongLiveShot: [[["memory", "MEMORY"], ["state", FILM]], ["LONGLIVE_STREAM", "LONGLIVE_STATE"]],
  LongLiveSaveCast: [[["stream", FILM], ["vae", "VAE"]], ["CAST", "IMAGE"]],
  LongLiveAsyncDecode: [[["stream", FILM]], []],
};

/**
 * A graph: nodes by id as [kind, mode, values of widgets], and links as [from, output, to, input].
 *
 * @param {Record<number, [string, number?, Record<string, string>?]>} nodes
 * @param {[number, number, number, number][]} links
 */
function graphOf(nodes, links) {
  const graph = { links: {}, getNodeById: (id) => made[id] ?? null };
  const made = Object.fromEntries(
    Object.entries(nodes).map(([id, [kind, mode = RUN, values = {}]]) => {
      const inputs = KINDS[kind][0].map(([name, type]) => ({ name, type, link: null }));
      const outputs = KINDS[kind][1].map((type) => ({ type, links: [] }));
      const widgets = Object.entries(values).map(([name, value]) => ({ name, value }));
      return [id, { id: Number(id), comfyClass: kind, mode, inputs, outputs, widgets, graph }];
    }),
  );
  links.forEach(([from, output, to, input], id) => {
    graph.links[id] = { origin_id: from, target_id: to, target_slot: input };
    made[from].outputs[output].links.push(id);
    made[to].inputs[input].link = id;
  });
  return made;
}

/** Two films: a block of the first one, 2, is saved by 3 for the script, 5, of the second one. */
const films = (save = RUN, sampler = RUN) =>
  graphOf(
    {
      1: ["LongLiveShotScript"],
      2: ["LongLiveStreamingSampler", sampler],
      3: ["LongLiveSaveCast", save, { name: "hero" }],
      4: ["LongLiveAsyncDecode"],
      5: ["LongLiveShotScript"],
      6: ["LongLiveStreamingSampler"],
      7: ["LongLiveAsyncDecode"],
    },
    [[1, 0, 2, 0], [2, 0, 3, 0], [2, 0, 4, 0], [3, 0, 5, 0], [5, 0, 6, 0], [6, 0, 7, 0]],
  );

const idsOf = (nodes) => [...nodes].map(({ id }) => id).sort();

test("a script has the cast file of a LongLive Save Cast that is run, and of no other one", () => {
  assert.deepEqual(castOf(films()[5]), [["hero.cast.safetensors", "hero"]]);
  for (const mode of [MUTED, BYPASSED]) assert.deepEqual(castOf(films(mode)[5]), []);
});

test("a bypassed LongLive Cast passes on those before it, a muted one nothing", () => {
  const chain = (mode) =>
    graphOf(
      {
        1: ["LongLiveCast", RUN, { cast_name: "a", name: "" }],
        2: ["LongLiveCast", mode, { cast_name: "b", name: "B" }],
        3: ["LongLiveShotScript"],
      },
      [[1, 0, 2, 1], [2, 0, 3, 0]],
    )[3];
  assert.deepEqual(castOf(chain(RUN)), [["a", ""], ["b", "B"]]);
  assert.deepEqual(castOf(chain(BYPASSED)), [["a", ""]]);
  assert.deepEqual(castOf(chain(MUTED)), []);
});

test("what a script's film is made by ends where another script begins", () => {
  assert.deepEqual(idsOf(downstream(films()[1])), [1, 2, 3, 4]);
  assert.deepEqual(idsOf(downstream(films()[5])), [5, 6, 7]);
  assert.deepEqual(idsOf(downstream(null)), []);
});

test("muted and bypassed nodes are left out; a bypassed one passes on what the front-end connects", () => {
  for (const mode of [MUTED, BYPASSED]) {
    assert.deepEqual(idsOf(downstream(films(mode)[1])), [1, 2, 4]);
    assert.deepEqual(idsOf(downstream(films(RUN, mode)[1])), [1]);
  }
  const shots = (mode) =>
    graphOf(
      { 1: ["LongLiveStreamingSampler"], 2: ["LongLiveShot", mode], 3: ["LongLiveShot"], 4: ["LongLiveAsyncDecode"] },
      [[1, 1, 2, 1], [2, 1, 3, 1], [2, 0, 4, 0]],
    )[1];
  assert.deepEqual(idsOf(downstream(shots(RUN))), [1, 2, 3, 4]);
  assert.deepEqual(idsOf(downstream(shots(BYPASSED))), [1, 3, 4]);
  assert.deepEqual(idsOf(downstream(shots(MUTED))), [1]);
});
