import assert from "node:assert/strict";
import { test } from "node:test";
import { boardPrompt } from "../../web/js/strip/board_prompt.mjs";

const node = (kind, inputs = {}) => ({ class_type: kind, inputs });
const FILM = {
  1: node("LongLiveMini"),
  2: node("LongLiveShotScript", { script: "a fox" }),
  4: node("LongLiveEncodeShots", { shots: ["2", 0], clip: ["1", 1] }),
  5: node("LongLiveStreamingSampler", { model: ["1", 0], conditioning: ["4", 0], seed: 7 }),
  6: node("LongLiveAsyncDecode", { stream: ["5", 0], vae: ["1", 2], filename_prefix: "video/a" }),
  9: node("SaveImage", { images: ["8", 0] }),
};

test("the prompt has what leads to the sampler and the VAE, and the storyboard in place of the film", () => {
  const { prompt } = boardPrompt(FILM, ["5"], "board");
  assert.deepEqual(Object.keys(prompt).sort(), ["1", "2", "4", "5", "board"]);
  assert.deepEqual(prompt.board, node("LongLiveStoryboard", { stream: ["5", 0], vae: ["1", 2] }));
  assert.equal(FILM[6].class_type, "LongLiveAsyncDecode");
});

test("a storyboard node of the graph is read in place of the decoder behind it", () => {
  const graph = {
    ...FILM,
    6: node("LongLiveAsyncDecode", { stream: ["7", 0], vae: ["1", 2] }),
    7: node("LongLiveStoryboard", { stream: ["5", 0], vae: ["1", 2] }),
  };
  assert.deepEqual(Object.keys(boardPrompt(graph, ["5"], "board").prompt).sort(), ["1", "2", "4", "5", "board"]);
});

test("what has no storyboard says what is missing", () => {
  assert.deepEqual(boardPrompt(FILM, ["55"], "board"), { missing: "film" });
  assert.deepEqual(boardPrompt({ 5: FILM[5] }, ["5"], "board"), { missing: "film" });
  const saved = { ...FILM, 6: node("LongLiveAsyncDecode", { stream: ["7", 0], vae: ["1", 2] }), 7: node("LongLiveSaveTake", { stream: ["5", 0] }) };
  assert.deepEqual(boardPrompt(saved, ["5"], "board"), { missing: "direct" });
  const continued = { ...FILM, 5: node("LongLiveStreamingSampler", { state: ["3", 1] }) };
  assert.deepEqual(boardPrompt(continued, ["5"], "board"), { missing: "direct" });
});
