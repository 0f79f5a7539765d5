import assert from "node:assert/strict";
import { test } from "node:test";
import { statesOfBoard, statesOfFilm, statesOfTake, stillsOf } from "../../web/js/strip/shot_states.mjs";

const SHOTS = [
  { number: 1, start: 0, seconds: 3.875 },
  { number: 2, start: 3.875, seconds: 4 },
  { number: 3, start: 7.875, seconds: 4 },
];
const film = (frames, state = "making") => ({ frames, fps: 24, state });
const shown = (states) => [...states.values()].map(({ state }) => state);

test("of a film that is made, shots are made, then one is being made, then they wait", () => {
  assert.deepEqual(shown(statesOfFilm(film(0, "waiting"), SHOTS)), ["waiting", "waiting", "waiting"]);
  const states = statesOfFilm(film(93 + 48), SHOTS);
  assert.deepEqual(shown(states), ["made", "making", "waiting"]);
  assert.equal(states.get(2).progress, 0.5);
  assert.deepEqual(shown(statesOfFilm(film(285), SHOTS)), ["made", "made", "made"]);
});

const take = {
  shots: [1, 2].map((shot) => ({
    shot,
    chosen: 0,
    locked: shot === 2,
    versions: [{ still: `s${shot}v0` }, { still: shot === 1 ? "s1v1" : null }],
  })),
};

test("what a run would make again is unmade, what an edit undone brings back is made", () => {
  const changes = { shots: [{ shot: 1, state: "restored", version: 1 }, { shot: 2, state: "remade", version: null }] };
  const states = statesOfTake(changes, take);
  assert.deepEqual(shown(states), ["made", "unmade"]);
  assert.deepEqual([...states.values()].map(({ locked }) => locked), [false, true]);
  assert.deepEqual([...stillsOf(take, changes)], [[1, "s1v1"], [2, "s2v0"]]);
  assert.deepEqual([...stillsOf(take)], [[1, "s1v0"], [2, "s2v0"]]);
});

const board = {
  film: null,
  shots: [1, 2, 3].map((shot) => ({
    shot,
    chosen: 0,
    locked: false,
    versions: [{ still: `s${shot}v0`, accepted: shot === 1 }],
  })),
};

test("a shot whose first block is the storyboard's is on the board, until its film is made", () => {
  const part = { version: 0, board: true };
  const changes = {
    another_film: false,
    shots: [
      { ...part, shot: 1, state: "new", source: 1 },
      { ...part, shot: 2, state: "kept", source: 2 },
      { shot: 3, state: "new", version: null, source: null, board: false },
    ],
  };
  const states = statesOfTake(changes, board);
  assert.deepEqual(shown(states), ["board", "board", "unmade"]);
  assert.deepEqual([...states.values()].map(({ accepted }) => accepted), [true, false, false]);
  assert.deepEqual(shown(statesOfTake(changes, { ...board, film: { filename: "film.mp4" } })), ["board", "made", "unmade"]);
});

test("in another film a shot has the still of the shot that it was, and a new one has none", () => {
  const changes = {
    another_film: true,
    shots: [
      { shot: 1, state: "new", version: 0, source: 3, board: true },
      { shot: 2, state: "new", version: 0, source: null, board: false },
      { shot: 3, state: "new", version: 0, source: 1, board: true },
    ],
  };
  assert.deepEqual([...stillsOf(board, changes)], [[1, "s3v0"], [3, "s1v0"]]);
  assert.deepEqual([...statesOfTake(changes, board).values()].map(({ accepted }) => accepted), [false, false, true]);
});

test("while a storyboard is made, shots with a still stay, and those behind the one that is made wait", () => {
  const known = new Map([[1, { state: "board" }], [2, { state: "board" }], [3, { state: "unmade" }], [4, { state: "unmade" }]]);
  const shots = [1, 2, 3, 4].map((number) => ({ number, start: 0, seconds: 1 }));
  const stills = new Map([[1, "s1v0"]]);
  assert.deepEqual(shown(statesOfBoard({ shot: 3 }, shots, known, stills)), ["board", "making", "making", "waiting"]);
  assert.deepEqual(shown(statesOfBoard({ shot: 0 }, shots, known, stills)), ["board", "waiting", "waiting", "waiting"]);
});

test("of another film, a shot is unmade and not locked, and shows in grey what the same text was", () => {
  const shots = [1, 2].map((shot) => ({ shot, chosen: 0, locked: true, versions: [{ text: `t${shot}`, still: `s${shot}` }] }));
  const part = { state: "remade", version: 0, source: null, board: false };
  const changes = { another_film: true, shots: [1, 2].map((shot) => ({ ...part, shot })) };
  const states = statesOfTake(changes, { film: {}, shots });
  assert.deepEqual([...states.values()].map(({ state, locked }) => [state, locked]), [["unmade", false], ["unmade", false]]);
  const written = [{ number: 1, text: "t1" }, { number: 2, text: "new" }];
  assert.deepEqual([...stillsOf({ shots }, changes, written)], [[1, "s1"]]);
});
