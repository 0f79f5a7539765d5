import assert from "node:assert/strict";
import { test } from "node:test";
import { continuityText, whenMeasured, withContinuity } from "../../web/js/strip/continuity.mjs";

const words = (key, values = {}) => [key, ...Object.values(values)].join(" ");
const report = { limit: 0.8, shots: [1, 2].map((shot) => ({ shot, score: shot / 4, faults: [] })) };

test("only shots that are made have a score", () => {
  const states = withContinuity(new Map([[1, { state: "made" }], [2, { state: "unmade" }], [3, { state: "made" }]]), report);
  assert.deepEqual([...states.values()].map(({ continuity }) => continuity?.score), [0.25, undefined, undefined]);
});

test("each low measure has its reason, with what the shot was compared with", () => {
  const fault = (measure, more = {}) => ({ measure, score: 0, shots: [], files: [], cut: true, ...more });
  const faults = [fault("identity", { shots: [1, 4], files: [2] }), fault("cut"), fault("cut", { cut: false })];
  const text = continuityText({ shot: 3, score: 0.125, faults }, words);
  assert.equal(text, "continuity 0.13: continuity_identity continuity_shot 1, continuity_shot 4, continuity_file 2; continuity_cut ; continuity_no_cut ");
  assert.equal(continuityText({ shot: 3, score: 1, faults: [] }, words), "continuity 1.00");
});

test("a report is asked for until the server has measured the film, and no more once it is not wanted", async () => {
  const answers = [{ waiting: true, shots: [] }, { waiting: true, shots: [] }, report];
  let [asked, paused] = [0, 0];
  const read = async () => answers[asked++];
  const pause = async () => void paused++;
  assert.equal(await whenMeasured(read, () => true, pause), report);
  assert.deepEqual([asked, paused], [3, 2]);
  [asked, paused] = [0, 0];
  assert.equal(await whenMeasured(read, () => paused === 0, pause), undefined);
  assert.deepEqual([asked, paused], [1, 1]);
});
