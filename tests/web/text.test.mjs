import assert from "node:assert/strict";
import { test } from "node:test";
import { clock, fileSize, fill } from "../../web/js/text.mjs";

test("values replace their names, and a name without a value stays", () => {
  assert.equal(fill("shot {shot} of {shots}, {hero}", { shot: 2, shots: 5 }), "shot 2 of 5, {hero}");
});

test("lengths of time are minutes and seconds, with hours from one hour on", () => {
  assert.deepEqual([0, 41.6, 60, 3599.6, 3723].map(clock), ["0:00", "0:42", "1:00", "1:00:00", "1:02:03"]);
});

test("sizes have three digits at most and a unit", () => {
  assert.deepEqual([0, 999, 1500, 12_345_678, 2e9].map(fileSize), ["0 bytes", "999 bytes", "1.5 kB", "12 MB", "2.0 GB"]);
});
