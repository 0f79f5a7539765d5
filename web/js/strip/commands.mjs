// What each command does, of a key or of a button: to the selected shot, or to the film.

/**
 * @param {import("./strip.mjs").Strip} strip
 * @param {import("./keys.mjs").Command} command
 * @returns {unknown} what nobody waits for
 */
export function runCommand(strip, { name, by = 0 }) {
  const { outline, selected } = strip.state;
  const shot = outline?.shots[selected];
  if (!outline || !shot || strip.script.wired()) return;
  const { number } = shot;
  const { edits, dialogs, film } = strip;
  const taken = film.taken(shot);
  switch (name) {
    case "select":
      return strip.select(selected + by);
    case "first":
      return strip.select(0);
    case "last":
      return strip.select(outline.shots.length - 1);
    case "move":
      if (!outline.shots[selected + by]) return;
      return edits.make({ kind: "move", shot: number, to: number + by });
    case "stretch":
      return strip.stretch(selected, Math.max(1, shot.blocks + by));
    case "split":
      return edits.make({ kind: "split", shot: number, blocks: Math.max(1, Math.ceil(shot.blocks / 2)) });
    case "cut":
      return edits.make({ kind: "cut", shot: number, cut: shot.continues });
    case "insert":
      return insert(strip, number + 1);
    case "edit":
      return dialogs.text(shot);
    case "seed":
      return dialogs.seed(shot);
    case "reroll":
      return edits.reroll(number);
    case "lock":
      return taken && film.onLock(number, !taken.locked);
    case "board":
      return film.onBoard();
    case "accept":
      return taken && accept(strip, number);
    case "accept all":
      return taken && film.onAccept(null, true);
    case "still":
      return strip.state.stills.has(number) && strip.still.open();
    case "versions":
      return taken && dialogs.versions(taken);
    default:
      return edits.make({ kind: name, shot: number });
  }
}

/** Inserts a shot and opens its text. @param {import("./strip.mjs").Strip} strip @param {number} number */
async function insert(strip, number) {
  const error = await strip.edits.make({ kind: "insert", shot: number, text: strip.word("strip_new_shot") });
  if (!error) strip.run({ name: "edit" });
}

/**
 * Accepts the still of a shot and goes on to the next one, or takes it back.
 *
 * @param {import("./strip.mjs").Strip} strip
 * @param {number} number
 */
function accept(strip, number) {
  const state = strip.state.states.get(number);
  if (state?.state !== "board") return;
  strip.film.onAccept(number, !state.accepted);
  if (!state.accepted) strip.select(number);
}
