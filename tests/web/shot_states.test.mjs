import assert from "node:assert/strict";
import { test } from "node:test";
import { statesOfFilm, statesOfTake, stillsOf } from "../../web/js/strip/shot_states.mjs";

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
