import assert from "node:assert/strict";
import { test } from "node:test";
import { makingOf, nodeOf } from "../../web/js/strip/making.mjs";

const QUEUED = { prompt: "p", shot: 2, wanted: 4 };
const film = (state, versions) => ({ state, line: "shot 2/2", versions });

test("versions in the queue wait, then their film says how many are made", () => {
  assert.equal(makingOf(undefined, undefined), undefined);
  const { made, line, shot, wanted } = makingOf(undefined, QUEUED);
  assert.deepEqual({ made, line, shot, wanted }, { made: 0, line: "", shot: 2, wanted: 4 });
  const running = makingOf(film("making", { shot: 2, wanted: 4, made: [1, 3] }), undefined);
  assert.deepEqual(running, { shot: 2, wanted: 4, made: 2, line: "shot 2/2" });
});

test("versions that are over are not shown as being made", () => {
  for (const state of ["done", "stopped", "failed"])
    assert.equal(makingOf(film(state, { shot: 2, wanted: 4, made: [1] }), undefined), undefined);
  assert.equal(makingOf(film("making", null), undefined), undefined);
});

test("the id of a node in a subgraph is no path of ids in the prompt", () => {
  assert.equal(nodeOf("12:5"), "longlive_versions_12_5");
});
