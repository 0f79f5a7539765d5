// The keys of a strip.

/**
 * @typedef {object} Command
 * @property {"select" | "move" | "stretch" | "delete" | "duplicate" | "edit" | "insert" | "split" | "cut" | "seed" | "reroll" | "lock" | "versions" | "board" | "accept" | "accept all" | "still" | "first" | "last"} name
 * @property {number} [by]
 */

/** @type {Record<string, Command>} */
const PLAIN = {
  ArrowLeft: { name: "select", by: -1 },
  ArrowRight: { name: "select", by: 1 },
  ArrowUp: { name: "select", by: -1 },
  ArrowDown: { name: "select", by: 1 },
  PageUp: { name: "select", by: -10 },
  PageDown: { name: "select", by: 10 },
  Home: { name: "first" },
  End: { name: "last" },
  "+": { name: "stretch", by: 1 },
  "=": { name: "stretch", by: 1 },
  "-": { name: "stretch", by: -1 },
  _: { name: "stretch", by: -1 },
  Delete: { name: "delete" },
  Backspace: { name: "delete" },
  Enter: { name: "edit" },
  F2: { name: "edit" },
  Insert: { name: "insert" },
  n: { name: "insert" },
  x: { name: "split" },
  c: { name: "cut" },
  s: { name: "seed" },
  d: { name: "reroll" },
  l: { name: "lock" },
  v: { name: "versions" },
  b: { name: "board" },
  a: { name: "accept" },
  A: { name: "accept all" },
  " ": { name: "still" },
};

/**
 * The command of a key, or undefined for one that is not the strip's.
 *
 * @param {{key: string, ctrlKey: boolean, metaKey: boolean, altKey: boolean}} event
 * @returns {Command | undefined}
 */
export function commandOf({ key, ctrlKey, metaKey, altKey }) {
  if (ctrlKey || metaKey) return key.toLowerCase() === "d" && !altKey ? { name: "duplicate" } : undefined;
  if (!altKey) return PLAIN[key];
  if (key === "ArrowLeft" || key === "ArrowUp") return { name: "move", by: -1 };
  return key === "ArrowRight" || key === "ArrowDown" ? { name: "move", by: 1 } : undefined;
}
