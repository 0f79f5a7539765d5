import assert from "node:assert/strict";
import { test } from "node:test";
import { commandOf } from "../../web/js/strip/keys.mjs";
import { dropIndex, fit, GAP, layOut, LEAST, scrollTo, stretched, visible } from "../../web/js/strip/layout.mjs";
import { applyFix, offsetOf, Reader, shotAt } from "../../web/js/strip/reading.mjs";
import { fresh, stateOf } from "../../web/js/strip/state.mjs";
import { roundingsOf, rowsOf, warnedShots } from "../../web/js/strip/warnings.mjs";

const shots = [
  { blocks: 3, continues: false },
  { blocks: 5, continues: false },
  { blocks: 1, continues: true },
];

test("cards are as wide as they are long, a cut leaves a gap and a continued shot none", () => {
  assert.deepEqual(layOut(shots, 40), { lefts: [0, 120 + GAP, 320 + GAP], widths: [120, 200, LEAST], width: 320 + GAP + LEAST });
});

test("a short film fills the view, a long one keeps cards that can be read", () => {
  for (const width of [300, 500, 900]) {
    const all = layOut(shots, fit(shots, width)).width;
    assert.ok(all <= width && all > width - 12, `${all} of ${width}`);
  }
  const long = Array.from({ length: 200 }, () => ({ blocks: 3, continues: false }));
  assert.ok(layOut(long, fit(long, 500)).widths.every((width) => width >= LEAST));
});

test("only cards in view are drawn, whatever the number of shots", () => {
  const long = layOut(Array.from({ length: 200 }, () => ({ blocks: 3, continues: false })), 20);
  const [first, last] = visible(long, 3000, 3500);
  assert.ok(last - first <= 9);
  assert.ok(long.lefts[first] <= 3000 && long.lefts[last] > 3500);
  assert.deepEqual(visible(layOut([], 20), 0, 100), [0, 0]);
});

test("a card is dropped where its middle is, counted without itself", () => {
  const layout = layOut([1, 2, 3, 4].map(() => ({ blocks: 1, continues: false })), 100);
  assert.equal(dropIndex(layout, 0, 50), 0);
  assert.equal(dropIndex(layout, 0, 180), 1);
  assert.equal(dropIndex(layout, 0, 900), 3);
  assert.equal(dropIndex(layout, 3, -20), 0);
});

test("an edge is dragged in whole blocks, and one block stays", () => {
  assert.deepEqual([0, 14, 16, -31, -500].map((distance) => stretched(3, distance, 30)), [3, 3, 4, 2, 1]);
});

test("the selected card is scrolled into view, and no further", () => {
  const layout = layOut([1, 2, 3].map(() => ({ blocks: 1, continues: true })), 100);
  assert.deepEqual([0, 1, 2].map((index) => scrollTo(layout, index, 60, 150)), [0, 60, 150]);
});

test("keys of the strip have commands, and those of the host have none", () => {
  const key = (name, more = {}) => commandOf({ key: name, ctrlKey: false, metaKey: false, altKey: false, ...more });
  assert.deepEqual(key("ArrowRight"), { name: "select", by: 1 });
  assert.deepEqual(key("ArrowRight", { altKey: true }), { name: "move", by: 1 });
  assert.deepEqual(key("d", { ctrlKey: true }), { name: "duplicate" });
  assert.deepEqual(key("+"), { name: "stretch", by: 1 });
  for (const other of [key("z", { ctrlKey: true }), key("Delete", { ctrlKey: true }), key("r"), key("w"), key("x", { altKey: true })])
    assert.equal(other, undefined);
});

test("columns count characters, as the server does, and line ends of any platform", () => {
  const text = "a 🦊 fox\r\nSht 2: 狐 runs";
  assert.equal(text.replace("\r", "").slice(offsetOf(text, 1, 5), offsetOf(text, 1, 8)), "fox");
  assert.equal(applyFix(text, { line: 1, column: 5, end: 8, text: "ox" }), "a 🦊 ox\nSht 2: 狐 runs");
  assert.equal(applyFix(text, { line: 2, column: 1, end: 6, text: "Shot 2" }), "a 🦊 fox\nShot 2: 狐 runs");
});

test("while the server reads, only the newest text waits, and an answer to an old text is not shown", async () => {
  const sent = [];
  const shown = [];
  const gates = [];
  const send = (question) => {
    sent.push(question.script);
    return new Promise((resolve) => gates.push(() => resolve({ script: question.script })));
  };
  const reader = new Reader(send, (answer) => shown.push(answer.script));
  const ask = (script) => reader.ask({ script, fps: 24, default_seconds: 4 });
  const done = ask("a");
  for (const script of ["ab", "abc", "abcd"]) ask(script);
  gates[0]();
  await new Promise((resolve) => setTimeout(resolve));
  gates[1]();
  await done;
  assert.deepEqual([sent, shown], [["a", "abcd"], ["a", "abcd"]]);
  await ask("abcd");
  assert.equal(sent.length, 2);
});

const note = (line, message, fix = null) => ({ line, column: 1, end: 5, end_line: line, message, fix });
const outline = {
  shots: [{ number: 1, header: { line: 3 } }, { number: 2, header: { line: 6 } }],
  warnings: [note(4, "looks like a header", { line: 4, column: 1, end: 6, text: "Shot 2" })],
  notes: [note(1, "left out: it is a comment"), note(2, "left out: it is no shot")],
  plan_notes: ["shot 1: 4 s becomes 3 blocks, 3.88 s", "shot 1 has nothing to continue from"],
};

test("warnings come before notes, comments are not remarked, and an error stands alone", () => {
  assert.deepEqual(rowsOf(outline, undefined).map(({ kind }) => kind), ["warning", "note", "note"]);
  assert.deepEqual(roundingsOf(outline), ["shot 1: 4 s becomes 3 blocks, 3.88 s"]);
  const mistake = { what: "'zz' is not a length", remedy: "write 4s", line: 3, column: 7, fix: null };
  assert.deepEqual(rowsOf(outline, mistake).map(({ text }) => text), ["'zz' is not a length: write 4s"]);
  assert.deepEqual(rowsOf(undefined, undefined), []);
});

test("a line belongs to the last shot that begins above it", () => {
  assert.deepEqual([1, 3, 5, 6, 99].map((line) => shotAt(outline, line)), [0, 1, 1, 2, 2]);
  assert.deepEqual([...warnedShots(outline)], [1]);
});

test("strips of the newest nodes are remembered", () => {
  stateOf("a", fresh()).selected = 4;
  assert.equal(stateOf("a", fresh()).selected, 4);
  for (let index = 0; index < 60; index++) stateOf(`n${index}`, fresh());
  assert.equal(stateOf("a", fresh()).selected, 0);
});
