import assert from "node:assert/strict";
import { test } from "node:test";
import { Boxes } from "../../web/js/player/boxes.mjs";
import { keyTime } from "../../web/js/player/scrub.mjs";
import { filmLine } from "../../web/js/player/words.mjs";
import { FilmStore } from "../../web/js/store.mjs";

/** A box of a size that has only its header. */
function box(kind, size = 8) {
  const bytes = new Uint8Array(size);
  new DataView(bytes.buffer).setUint32(0, size);
  bytes.set(new TextEncoder().encode(kind), 4);
  return [...bytes];
}

const FILM = {
  key: "a", prompt_id: "1", node: "6", workflow: "w", name: "film_00003.mp4", subfolder: "", type: "output", mime: "",
  bytes: 100, frames: 84, total_frames: 381, fps: 24, width: 128, height: 128, shot: 2, shots: 5, cuts: [4], pace: 11.2,
  left: 42.4, state: "making", line: "", take: null,
};
const word = (key, values = {}) => [key, ...Object.values(values)].join(" ");

test("the fragments of a finished mp4 end before its index, wherever it is cut into pieces", () => {
  const fragments = [...box("ftyp"), ...box("moov", 30), ...box("moof", 20), ...box("mdat", 50), ...box("moof", 9)];
  const file = new Uint8Array([...fragments, ...box("moov", 40)]);
  for (let cut = 1; cut < file.length; cut++) {
    const boxes = new Boxes();
    const first = boxes.usable(file.subarray(0, cut), 0);
    assert.ok(first <= cut);
    const second = boxes.ended ? 0 : boxes.usable(file.subarray(first), first);
    assert.equal(first + second, fragments.length);
    assert.ok(boxes.ended);
  }
});

test("read from a fragment on, the first movie box is the index", () => {
  const file = new Uint8Array([...box("moof", 20), ...box("mdat", 50), ...box("moov", 40)]);
  assert.equal(new Boxes(500).usable(file, 500), 70);
});

test("the line says what is made, how fast and how long yet, and what was kept", () => {
  assert.equal(filmLine(FILM, word), "film_shot 2 5 · film_pace 11 · film_left 0:42 · film_00003.mp4");
  assert.equal(filmLine({ ...FILM, state: "stopped" }, word), "film_kept 3.5 film_length 15.9 · film_goes_on");
  assert.equal(filmLine({ ...FILM, state: "done", frames: 381 }, word), "film_00003.mp4 · film_length 15.9");
  assert.equal(filmLine({ ...FILM, state: "failed", line: "disk full" }, word), "disk full · film_kept 3.5 film_length 15.9");
  assert.equal(filmLine({ ...FILM, state: "stopped", total_frames: 2544 }, word), "film_kept 0:04 1:46 · film_goes_on");
  assert.equal(filmLine({ ...FILM, shot: 0, left: null, name: "" }, word), "film_waiting");
});

test("keys move by seconds and to the ends of what exists", () => {
  assert.deepEqual(["ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "x"].map((key) => keyTime(key, 3, 6)), [2, 4, 0, 6, 6, undefined]);
});

test("an answer that an event has overtaken changes nothing; a node's next film takes the place", () => {
  const store = new FilmStore();
  const seen = [];
  store.subscribe((film) => seen.push([film.prompt_id, film.state, film.bytes]));
  store.put({ ...FILM, bytes: 200 });
  store.put(FILM);
  store.put({ ...FILM, bytes: 300, state: "done" });
  store.put({ ...FILM, bytes: 300 });
  store.put({ ...FILM, prompt_id: "2", bytes: 0, state: "waiting" });
  assert.deepEqual(seen, [["1", "making", 200], ["1", "done", 300], ["2", "waiting", 0]]);
});

test("a film ends also with fewer bytes, and then none is running", () => {
  const store = new FilmStore();
  store.put({ ...FILM, bytes: 300 });
  assert.equal(store.running, true);
  store.put({ ...FILM, bytes: 250, state: "stopped" });
  assert.equal(store.get("a").state, "stopped");
  assert.equal(store.running, false);
});

test("a film that the server no longer knows was stopped", () => {
  const store = new FilmStore();
  store.put(FILM);
  store.listed([{ ...FILM, key: "b", node: "7" }]);
  assert.equal(store.get("a").state, "stopped");
  assert.equal(store.newest("w", ["7", "8"]).key, "b");
  assert.equal(store.newest("other", ["7"]), undefined);
});
