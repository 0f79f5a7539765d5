"""The window of the KV cache: which blocks it holds, and in which slots. Integers only, one window for all layers.

Keys are stored after RoPE with absolute positions, so their order in the cache does not matter. A new block overwrites
the slot of the oldest block that is neither a global sink nor the shot sink, the pinned first block of the shot:

    slots    0          1          2          3            W / n = 4, one global sink
    block 5  0 global   5 new      3 shot     4            block 3 was a cut; block 5 took the slot of block 1
    block 6  0 global   5          3 shot     6 new        block 4 was the oldest other

A shot may recall earlier blocks. They get the slots behind the global sinks before the shot's first block begins, and
stay there as long as the shot lasts:

    shot of 7 recalls 1    0 global   1 recalled 6          3 shot     the block that was in slot 1 moved to slot 2
    block 7                0 global   1 recalled 7 new      3 shot

Blocks of cast files have negative numbers. They are of no shot of this film, and enter anew for every shot. So do the
copies of global sinks, where recalled blocks stand in front of the shot: the sink itself stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

FIRST_COPY = -1_000_000  # the number of the copy of block 0; those of cast files are above it


def copy_of(sink: int) -> int:
    """The number of the copy of a global sink."""
    return FIRST_COPY - sink


def original_of(block: int) -> int:
    """The block of which this one is a copy, or the block itself."""
    return FIRST_COPY - block if block <= FIRST_COPY else block


class Move(NamedTuple):
    """What is in slot `source` is copied to slot `target`. Moves are made in order."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class WindowState:
    """State of a window between two blocks.

    blocks: the block in each occupied slot. pin: the shot sink. next: index of the next block. recalled: the recalled
    blocks of the shot so far, as `Window.recalled`.
    """

    blocks: tuple[int, ...]
    pin: int | None
    next: int
    recalled: tuple[int, ...] = ()


class Window:
    """Assigns a slot to each new block. For every block in film order: `begin`, optionally `recache`, then `end`.

    Before the first block of every shot: `recall`, then `entered` for each block that is `entering`.

    slots: number of blocks that fit, including the new one. sinks: number of blocks at the start of the film that are
    never evicted. shot_sink: whether a cut pins its block. pin: the shot sink, that is, the first block of the newest
    shot whose first clean pass is done, or None. current: the block between `begin` and `end`, or None. recalled: the
    recalled blocks of the shot, which are not evicted: no global sinks, but their copies. entering: those of them whose
    K/V are not in their slot yet. Raises ValueError if no slot is left for a new block.
    """

    def __init__(self, slots: int, *, sinks: int = 1, shot_sink: bool = True) -> None:
        pinned = sinks + (1 if shot_sink else 0)
        if sinks < 0 or slots < pinned + 1:
            raise ValueError(
                f"{slots} slots cannot hold {pinned} pinned blocks and a new block; use {pinned + 1} slots or more"
            )
        self.slots = slots
        self.sinks = sinks
        self.shot_sink = shot_sink
        self._blocks: list[int] = []
        self.pin: int | None = None
        self._next = 0
        self.current: int | None = None
        self.recalled: tuple[int, ...] = ()
        self.entering: tuple[int, ...] = ()
        # The block that the last `recall` was for.
        self._recalled_for: int | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """The block in each occupied slot. Slots are filled from the first one on."""
        return tuple(self._blocks)

    @property
    def slot(self) -> int:
        """The slot of the current block. Raises RuntimeError between blocks."""
        if self.current is None:
            raise RuntimeError("the window has no current block; call begin first")
        return self._blocks.index(self.current)

    def attended(self) -> tuple[int, ...]:
        """The blocks that the current block attends, in film order. The last one is the current block itself."""
        return tuple(sorted(self._blocks))

    def begin(self, block: int, *, alone: bool = False) -> int:
        """Assigns a slot to the next block of the film, evicts the block in it, and returns the slot.

        alone: first evict all blocks but the global sink. For the current block it returns the same slot again, so that
        an interrupted block can be restarted. Raises RuntimeError for a block that is neither the current nor the next
        one.
        """
        if block == self.current:
            return self.slot
        if self.current is not None or block != self._next:
            current = "none" if self.current is None else self.current
            raise RuntimeError(f"block {block} cannot begin: the current block is {current}, the next is {self._next}")
        if self.entering:
            raise RuntimeError(f"block {block} cannot begin: the recalled blocks {self.entering} have not entered")
        if alone:
            self._blocks, self.pin = list(range(min(self.sinks, block))), None
        if len(self._blocks) < self.slots:
            self._blocks.append(block)
        else:
            self._blocks[self._blocks.index(self._oldest(self._blocks))] = block
        self.current, self._next = block, block + 1
        return self.slot

    def _oldest(self, blocks: Iterable[int]) -> int:
        """The block that is evicted next. Raises ValueError if all are pinned."""
        pinned = {self.pin, *self.recalled}
        return min(other for other in blocks if not self._is_sink(other) and other not in pinned)

    def _is_sink(self, block: int) -> bool:
        return 0 <= block < self.sinks

    @property
    def held_sinks(self) -> list[int]:
        """The global sinks that are finished; they have the first slots, but in a first shot that recalls a cast."""
        return [block for block in self._blocks if self._is_sink(block)]

    def skip_to(self, block: int) -> bool:
        """Makes a later block the next one and evicts all but the global sink; false if that is not finished yet."""
        if self.current is not None or not self.sinks <= self._next < block:
            return False
        self._blocks, self.pin, self._next = list(range(self.sinks)), None, block
        return True

    def recall(self, blocks: Sequence[int], *, again: bool = False) -> tuple[Move, ...]:
        """Makes `blocks` the recalled blocks of the shot that begins next; returns the moves to make at once.

        Recalled blocks of the shot before are evicted. A block that is in the window stays in its slot, unless `again`
        or of a cast file: it then enters once more, and of a global sink a copy does. Called again for the same shot,
        as after an interrupt, it returns no moves, and `entering` tells what is left to do. Raises RuntimeError within
        a block and for a block that is not before the next one.
        """
        if self.current is not None or not all(block < self._next for block in blocks):
            raise RuntimeError(f"blocks {list(blocks)} cannot be recalled before block {self._next}")
        if self._recalled_for == self._next or not (blocks or self.recalled):
            return ()
        before, self._recalled_for = self.recalled, self._next
        wanted = dict.fromkeys(block for block in blocks if again or not self._is_sink(block))
        self.recalled = tuple(copy_of(block) if self._is_sink(block) else block for block in wanted)
        self.entering = tuple(b for b in self.recalled if again or b < 0 or b not in self._blocks)
        gone = {*before} - {*self.recalled, self.pin} | {*self.entering}
        others = [block for block in self._blocks if not self._is_sink(block) and block not in gone]
        sinks = self.held_sinks
        while len(sinks) + len(self.entering) + len(others) > self.slots:
            others.remove(self._oldest(others))
        # The block that enters last has the first slot behind the sinks, in which each of them is written.
        return self._rearrange([*sinks, *reversed(self.entering), *others], self.entering)

    def entered(self) -> Move:
        """Ends the entrance of the first block that is `entering`, whose K/V are in the first slot behind the sinks.

        Returns the move to its own slot.
        """
        first, *rest = self.entering
        self.entering = tuple(rest)
        return Move(len(self.held_sinks), self._blocks.index(first))

    def recache(self) -> tuple[Move, ...]:
        """Evicts all but the global sink, the recalled blocks and the current block; returns the moves to make.

        The current block gets the slot after them. The caller must write its K/V there again.
        """
        current = self._blocks[self.slot]
        recalled = [block for block in self._blocks if block in self.recalled]
        self.pin = None
        return self._rearrange([*range(min(self.sinks, current)), *recalled, current], (current,))

    def _rearrange(self, blocks: list[int], written: Sequence[int]) -> tuple[Move, ...]:
        """Gives the blocks these slots; returns the moves of those that change theirs.

        written: the blocks whose K/V the caller writes to their slots, so that they need no move.
        """
        moves = [Move(self._blocks.index(b), slot) for slot, b in enumerate(blocks) if b not in written]
        self._blocks = blocks
        # The order of the blocks that move does not change, so that no move overwrites the source of a later one.
        up = [move for move in reversed(moves) if move.target > move.source]
        return (*up, *(move for move in moves if move.target < move.source))

    def end(self, *, cut: bool) -> None:
        """Ends the current block, whose clean K/V are in its slot. A cut pins it instead of the previous shot sink."""
        current = self._blocks[self.slot]
        if cut and self.shot_sink:
            self.pin = current
        self.current = None

    def state(self) -> WindowState:
        """The state for `restore`. The current block counts as the next one, because its K/V are not clean yet."""
        if self.entering:
            raise RuntimeError(f"the window has no state while the recalled blocks {self.entering} enter")
        return WindowState(self.blocks, self.pin, self._next if self.current is None else self.current, self.recalled)

    def restore(self, state: WindowState) -> None:
        """Restores the state of a window with the same settings. Raises RuntimeError if the state is not valid here."""
        self._blocks, self.pin, self.recalled = list(state.blocks), state.pin, state.recalled
        self.entering, self._recalled_for = (), None
        # A state that was taken between `begin` and `end` lists the next block already, in the slot that it began in.
        self.current = state.next if state.next in state.blocks else None
        self._next = state.next + (1 if self.current is not None else 0)
        self.check_integrity()

    def check_integrity(self) -> None:
        """Raises RuntimeError, naming each fault, if the window breaks one of its invariants."""
        blocks = set(self._blocks)
        sinks = set(range(min(self.sinks, self._next))) if blocks else set[int]()
        faults = {
            "a block has two slots": len(blocks) != len(self._blocks),
            "there are more blocks than slots": len(blocks) > self.slots,
            "a block is not before the next one": any(block >= self._next for block in blocks),
            "a block of no film is not recalled": any(block < 0 for block in blocks - {*self.recalled}),
            "the global sink is missing": not sinks <= blocks,
            "the shot sink is missing": self.pin is not None and self.pin not in blocks,
            "a recalled block is missing": not {*self.recalled} <= blocks,
            # After `skip_to` there is only the sink.
            "the newest block is missing": self._next > 0 and self._next - 1 not in blocks and blocks != sinks,
        }
        found = [fault for fault, present in faults.items() if present]
        if found:
            raise RuntimeError(f"KV window {self._blocks} (pin {self.pin}, next {self._next}): {', '.join(found)}")
