// What a strip does when it is scrolled, gets keys or loses the focus.
import { commandOf } from "./keys.mjs";

/** Milliseconds in which the front-end replaces the nodes of a graph. */
const UNDO_MS = 300;
const MIDDLE = 1;

/** @param {import("./strip.mjs").Strip} strip */
export function listen(strip) {
  const { element, reel } = strip;
  const { list } = reel;
  for (const type of /** @type {const} */ (["pointerdown", "pointerup", "dblclick"]))
    element.addEventListener(type, (event) => {
      if (event.button !== MIDDLE) event.stopPropagation();
    });
  list.addEventListener("scroll", () => {
    strip.state.scroll = list.scrollLeft;
    reel.drawCards();
  });
  list.addEventListener("focus", () => {
    strip.state.focused = true;
  });
  // An undo takes the focus too, a little before it replaces the node: then it comes back.
  list.addEventListener("blur", () =>
    setTimeout(() => {
      if (!strip.disposed && list.isConnected && document.activeElement !== list) strip.state.focused = false;
    }, UNDO_MS),
  );
  element.addEventListener("keydown", (event) => {
    const inList = event.target === list;
    const command = inList ? commandOf(event) : undefined;
    if (command || event.key === "Delete" || event.key === "Backspace") event.stopPropagation();
    if (!command) return;
    event.preventDefault();
    strip.run(command);
  });
  element.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey || event.metaKey) return;
      event.stopPropagation();
      const scrolls = list.scrollWidth > list.clientWidth; // if not, what is around it may scroll
      if (!scrolls || !list.contains(/** @type {Node} */ (event.target)) || !event.deltaY || event.shiftKey) return;
      event.preventDefault();
      list.scrollLeft += event.deltaY;
    },
    { passive: false },
  );
}
