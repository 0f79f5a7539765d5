// The row of buttons for the selected shot.
import { icon, iconButton, isStale, make } from "../dom.mjs";

/**
 * @param {HTMLElement} tools
 * @param {import("./reading.mjs").Shot | undefined} shot
 * @param {number} count of shots
 * @param {import("../takes/routes.mjs").TakeShot | undefined} taken the shot in the take, if it can be changed
 * @param {import("./cards.mjs").ShotState | undefined} state
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 * @param {(command: import("./keys.mjs").Command) => void} run
 */
export function drawTools(tools, shot, count, taken, state, word, run) {
  const onBoard = state?.state === "board";
  if (!isStale(tools, [shot, count, taken, onBoard && Boolean(state?.accepted), onBoard, word("strip_edit")])) return;
  const focused = document.activeElement?.getAttribute("data-tool");
  if (!shot) return tools.replaceChildren();
  /** @param {string} sign @param {import("./keys.mjs").Command} command @param {string} label @param {boolean} [off] */
  const button = (sign, command, label, off = false) => {
    const made = iconButton(sign, label, () => run(command));
    made.dataset.tool = `${command.name}${command.by ?? ""}`;
    made.disabled = off;
    return made;
  };
  const first = shot.number === 1;
  const joint = shot.continues ? "strip_make_cut" : "strip_make_continue";
  tools.replaceChildren(
    make("span", { className: "ll-which" }, word("strip_shot", { shot: shot.number })),
    make(
      "span",
      { className: "ll-stepper" },
      button("pi-minus", { name: "stretch", by: -1 }, word("strip_shorter"), shot.blocks < 2),
      make("span", {}, word(shot.blocks === 1 ? "strip_block" : "strip_blocks", { blocks: shot.blocks })),
      button("pi-plus", { name: "stretch", by: 1 }, word("strip_longer")),
    ),
    button("pi-arrow-left", { name: "move", by: -1 }, word("strip_move_left"), first),
    button("pi-arrow-right", { name: "move", by: 1 }, word("strip_move_right"), shot.number === count),
    make("span", { className: "ll-space" }),
    button("pi-pencil", { name: "edit" }, word("strip_edit")),
    button("pi-file-plus", { name: "insert" }, word("strip_insert")),
    button("pi-clone", { name: "duplicate" }, word("strip_duplicate")),
    button("ll-split", { name: "split" }, word("strip_split"), shot.blocks < 2),
    button(shot.continues ? "ll-cut" : "pi-link", { name: "cut" }, word(joint), first),
    button("pi-trash", { name: "delete" }, word("strip_delete"), count === 1),
    make("span", { className: "ll-space" }),
    ...(onBoard ? [button("pi-search-plus", { name: "still" }, word("strip_still"))] : []),
    ...(taken && onBoard && state ? [acceptButton(state, word, button)] : []),
    ...(taken ? takeButtons(taken, word, button) : []),
    button("pi-refresh", { name: "reroll" }, word("strip_reroll"), taken?.locked),
    seedButton(shot.seed, word, () => run({ name: "seed" })),
  );
  if (focused) /** @type {HTMLElement | null} */ (tools.querySelector(`[data-tool="${focused}"]`))?.focus();
}

/** @param {number | null} seed @param {(key: string, values?: Record<string, string | number>) => string} word @param {() => void} onclick */
function seedButton(seed, word, onclick) {
  const text = seed === null ? word("strip_seed") : String(seed);
  const label = seed === null ? word("strip_seed_of_film") : word("strip_seed_is", { seed });
  return make(
    "button",
    { type: "button", className: "ll-seed", title: label, "aria-label": label, onclick, "data-tool": "seed" },
    icon("pi-hashtag"),
    text,
  );
}

/**
 * @param {import("./cards.mjs").ShotState} state of a shot whose storyboard is made
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 * @param {(sign: string, command: import("./keys.mjs").Command, label: string, off?: boolean) => HTMLButtonElement} button
 */
function acceptButton({ accepted }, word, button) {
  const made = button(accepted ? "pi-thumbs-up-fill" : "pi-thumbs-up", { name: "accept" }, word("strip_accept"));
  made.ariaPressed = String(Boolean(accepted));
  return made;
}

/**
 * Lock and versions of a shot that a take has.
 *
 * @param {import("../takes/routes.mjs").TakeShot} taken
 * @param {(key: string, values?: Record<string, string | number>) => string} word
 * @param {(sign: string, command: import("./keys.mjs").Command, label: string, off?: boolean) => HTMLButtonElement} button
 */
function takeButtons(taken, word, button) {
  const label = word(taken.locked ? "takes_unlock" : "takes_lock", { shot: taken.shot });
  const lock = button(taken.locked ? "pi-lock" : "pi-lock-open", { name: "lock" }, label);
  lock.ariaPressed = String(taken.locked);
  const versions = word("strip_versions", { count: taken.versions.length });
  return [lock, button("pi-images", { name: "versions" }, versions)];
}
