"""Which blocks are kept and in which slot: integers only, one for all layers.

Keys carry their position (RoPE is applied before they are kept), so their order in memory means nothing and a new block
simply overwrites the slot of the oldest block that is neither a sink nor the pinned first block of the shot:

    slots    0          1          2          3            W / n = 4, one global sink
    block 5  0 global   5 new      3 shot     4            block 3 was a cut; block 5 took the slot of block 1
    block 6  0 global   5          3 shot     6 new        block 4 was the oldest other
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowState:
    """A window between two blocks: the block in each occupied slot, the pinned block, and the next block to come."""

    blocks: tuple[int, ...]
    pin: int | None
    next: int


class Window:
    """Gives each new block a slot. For every block: `begin`, perhaps `recache`, then `end`.

    slots: blocks that fit, the new one included; sinks: blocks at the start of the film that stay for ever;
    shot_sink: whether a cut pins its block. Raises ValueError if the sinks leave no room.
    """

    def __init__(self, slots: int, *, sinks: int = 1, shot_sink: bool = True) -> None:
        pinned = sinks + (1 if shot_sink else 0)
        if sinks < 0 or slots < pinned + 1:
            raise ValueError(
                f"{slots} slots cannot hold {pinned} pinned blocks and a new one; give {pinned + 1} or more"
            )
        self.slots = slots
        self.sinks = sinks
        self.shot_sink = shot_sink
        self._blocks: list[int] = []
        self._pin: int | None = None
        self._next = 0
        self._current: int | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """The block in each occupied slot; occupied slots are always the first ones."""
        return tuple(self._blocks)

    @property
    def pin(self) -> int | None:
        """The shot sink: the first block of the newest shot, once its clean pass is done."""
        return self._pin

    @property
    def current(self) -> int | None:
        """The block that was begun and not ended."""
        return self._current

    @property
    def slot(self) -> int:
        """Slot of the current block. Raises RuntimeError between blocks."""
        if self._current is None:
            raise RuntimeError("no block is being made; begin one first")
        return self._blocks.index(self._current)

    def attended(self) -> tuple[int, ...]:
        """What the current block sees, in film order, itself last."""
        return tuple(sorted(self._blocks))

    def begin(self, block: int) -> int:
        """Makes room for the next block of the film and returns its slot.

        Beginning the current block again changes nothing, so that an interrupted block can be made anew.
        Raises RuntimeError for any other block than the next.
        """
        if block == self._current:
            return self.slot
        if self._current is not None or block != self._next:
            raise RuntimeError(f"block {block} cannot begin: the film stands at block {self._next}")
        if len(self._blocks) < self.slots:
            self._blocks.append(block)
        else:
            victim = min(kept for kept in self._blocks if kept >= self.sinks and kept != self._pin)
            self._blocks[self._blocks.index(victim)] = block
        self._current, self._next = block, block + 1
        return self.slot

    def recache(self) -> int:
        """Forgets all but the global sink and the current block, and returns the current block's new slot.

        The block moves to the first slot behind the sink; its keys and values must be written there anew.
        """
        current = self._blocks[self.slot]
        self._blocks = [kept for kept in range(min(self.sinks, current))] + [current]
        self._pin = None
        return self.slot

    def end(self, *, cut: bool) -> None:
        """The current block is clean and stays. A cut pins it in place of the shot before."""
        current = self._blocks[self.slot]
        if cut and self.shot_sink:
            self._pin = current
        self._current = None

    def state(self) -> WindowState:
        """What `restore` needs. An unfinished block counts as not begun: its slot's content is lost either way."""
        return WindowState(self.blocks, self._pin, self._next if self._current is None else self._current)

    def restore(self, state: WindowState) -> None:
        """Goes back to a state of a window of the same kind. Raises RuntimeError if it does not fit this one."""
        self._blocks, self._pin = list(state.blocks), state.pin
        # The state of a begun block lists that block already.
        self._current = state.next if state.next in state.blocks else None
        self._next = state.next + (1 if self._current is not None else 0)
        self.check_integrity()

    def check_integrity(self) -> None:
        """Proves that nothing is kept twice, forgotten wrongly or beyond its slots. Raises RuntimeError if so."""
        kept = set(self._blocks)
        sinks = set(range(min(self.sinks, self._next))) if self._blocks else set[int]()
        faults = {
            "a block is kept twice": len(kept) != len(self._blocks),
            "more blocks than slots": len(kept) > self.slots,
            "a block of the future": any(not 0 <= block < self._next for block in kept),
            "the global sink is lost": not sinks <= kept,
            "the shot sink is lost": self._pin is not None and self._pin not in kept,
            "the newest block is lost": self._next > 0 and self._next - 1 not in kept,
        }
        found = [fault for fault, true in faults.items() if true]
        if found:
            raise RuntimeError(f"memory window {self._blocks} (pin {self._pin}, next {self._next}): {', '.join(found)}")
