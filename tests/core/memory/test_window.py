"""The window of the KV cache: its closed form, the reference's examples, and refused settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from longlive.longlive_core.memory import MemoryConfig, Window


def contents(window: Window, cuts: set[int], blocks: int, *, recache: bool = False) -> list[list[int]]:
    """The frames (two per block) that each block attends; with recache, also those that a cut's clean pass attends."""
    seen: list[list[int]] = []
    for block in range(blocks):
        window.begin(block)
        seen.append(frames(window))
        if recache and block in cuts:
            window.recache()
            seen.append(frames(window))
        window.end(cut=block in cuts)
        window.check_integrity()
    return seen


def frames(window: Window) -> list[int]:
    return [2 * block + frame for block in window.attended() for frame in (0, 1)]


def test_roll8() -> None:
    """A cut block attends the old shot sink and then replaces it; the global sink is never evicted."""
    assert contents(Window(4), {3, 6}, 9) == [
        [0, 1],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 4, 5, 6, 7, 8, 9],
        [0, 1, 6, 7, 8, 9, 10, 11],
        [0, 1, 6, 7, 10, 11, 12, 13],
        [0, 1, 10, 11, 12, 13, 14, 15],
        [0, 1, 12, 13, 14, 15, 16, 17],
    ]


def test_cut_at_block_1_pins_beside_the_global_sink() -> None:
    """A cut at block 1 pins block 1 beside the global sink, and the window still rolls."""
    assert contents(Window(4), {1}, 7)[4:] == [
        [0, 1, 2, 3, 6, 7, 8, 9],
        [0, 1, 2, 3, 8, 9, 10, 11],
        [0, 1, 2, 3, 10, 11, 12, 13],
    ]


def test_two_cuts_in_a_row_keep_the_second() -> None:
    """The second of two cuts in a row is the shot sink, and the first one is evicted like any other block."""
    assert contents(Window(4), {3, 4}, 8)[4:] == [
        [0, 1, 4, 5, 6, 7, 8, 9],
        [0, 1, 6, 7, 8, 9, 10, 11],
        [0, 1, 8, 9, 10, 11, 12, 13],
        [0, 1, 8, 9, 12, 13, 14, 15],
    ]


def test_recache_leaves_the_global_sink_and_the_cut_block() -> None:
    """The recache at a cut evicts all but the global sink and the cut block, which is then the shot sink."""
    assert contents(Window(4), {2}, 6, recache=True)[2:] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 4, 5],
        [0, 1, 4, 5, 6, 7],
        [0, 1, 4, 5, 6, 7, 8, 9],
        [0, 1, 4, 5, 8, 9, 10, 11],
    ]


def test_recache_keeps_no_sink_that_is_yet_to_come() -> None:
    """A cut within the blocks that the global sink takes: it is a sink itself, once."""
    assert contents(Window(4, sinks=2), {1}, 4, recache=True) == [
        [0, 1],
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5, 6, 7],
    ]


def test_three_slots_hold_no_previous_block_in_a_later_shot() -> None:
    """Three slots hold the two sinks and the new block in later shots, and no previous block."""
    assert contents(Window(3), {2, 5}, 7)[3:] == [
        [0, 1, 4, 5, 6, 7],
        [0, 1, 4, 5, 8, 9],
        [0, 1, 4, 5, 10, 11],
        [0, 1, 10, 11, 12, 13],
    ]


def test_without_sinks_the_last_blocks_remain() -> None:
    """A window without sinks holds the newest blocks, and a cut pins none."""
    assert contents(Window(4, sinks=0, shot_sink=False), {3}, 7)[-1] == [6, 7, 8, 9, 10, 11, 12, 13]


@given(st.data())
def test_closed_form(data: st.DataObject) -> None:
    """Block b attends the sinks, the last cut before b and the newest other blocks, as many as there are slots."""
    sinks, shot_sink = data.draw(st.integers(0, 2)), data.draw(st.booleans())
    slots = data.draw(st.integers(sinks + shot_sink + 1, 7))
    blocks = data.draw(st.integers(1, 40))
    cuts = data.draw(st.sets(st.integers(1, 40)))
    window = Window(slots, sinks=sinks, shot_sink=shot_sink)
    for block in range(blocks):
        window.begin(block)
        pins = [cut for cut in sorted(cuts) if cut < block][-1:] if shot_sink else []
        pinned = {*range(min(sinks, block)), *pins, block}
        others = [other for other in range(block - 1, -1, -1) if other not in pinned]
        assert set(window.attended()) == pinned | set(others[: slots - len(pinned)])
        assert window.blocks[window.slot] == block
        window.end(cut=block in cuts)
        window.check_integrity()


@given(st.sets(st.integers(1, 20)), st.integers(0, 20), st.booleans())
def test_a_restored_window_goes_on_alike(cuts: set[int], at: int, begun: bool) -> None:
    """A restored window assigns the same slots as the original, also from a state taken within a block."""
    first = Window(4)
    contents(first, cuts, at)
    if begun:
        first.begin(at)
    second = Window(4)
    second.restore(first.state())
    for block in range(at, at + 6):
        for window in (first, second):
            window.begin(block)
        assert first.blocks == second.blocks
        for window in (first, second):
            window.end(cut=block in cuts)


def test_a_block_never_moves() -> None:
    """Slots are written in place: a block stays in its slot until it is evicted."""
    window, slots = Window(4), dict[int, int]()
    for block in range(30):
        slots[block] = window.begin(block)
        assert all(window.blocks[slots[other]] == other for other in window.attended())
        window.end(cut=block % 5 == 3)


def test_an_interrupted_block_begins_again_in_its_slot() -> None:
    """A block that begins again gets the same slot and evicts no other block."""
    window = Window(4)
    contents(window, set(), 6)
    slot = window.begin(6)
    before = window.blocks
    assert window.begin(6) == slot and window.blocks == before


def test_blocks_come_in_order() -> None:
    """Blocks begin in film order, each after the end of the one before."""
    window = Window(4)
    with pytest.raises(RuntimeError, match="block 1 cannot begin: the current block is none, the next is 0"):
        window.begin(1)
    window.begin(0)
    with pytest.raises(RuntimeError, match="block 1 cannot begin"):
        window.begin(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 31}, "window 31 is not a multiple of the block, 8 latent frames; try 32"),
        ({"sink": 1}, "sink 1 is not a multiple"),
        ({"window": 16}, "window 16 is too short for a sink of 8.*set window to 24"),
        ({"window": 8, "sink": 0}, "window 8 is too short"),
        ({"window": -8}, "window -8"),
        ({"t_scale": 0.0}, "t_scale 0.0 must be above 0"),
    ],
)
def test_impossible_memory_settings_are_refused_with_a_remedy(change: dict[str, int], message: str) -> None:
    """A window, sink or time scale that cannot work is refused with its name and value."""
    with pytest.raises(ValueError, match=message):
        MemoryConfig(**change).check(8)


def test_positions_are_scaled_with_the_offset_of_their_cuts() -> None:
    """(frame + rope_offset · cuts) · t_scale: the scale holds for the whole sum."""
    assert MemoryConfig().position(16, 2) == 16 + 2 * 8
    assert MemoryConfig(t_scale=0.5, rope_offset=6.0).position(16, 2) == 0.5 * (16 + 2 * 6)


def test_integrity_notices_a_lost_sink() -> None:
    """A window that has lost its global sink fails the integrity check, which names the fault."""
    window = Window(4)
    contents(window, set(), 6)
    window._blocks[0] = 1
    with pytest.raises(RuntimeError, match="global sink is missing"):
        window.check_integrity()


def test_a_block_alone_sees_the_global_sink_only() -> None:
    """Of independent shots: no block before the cut stays but the global sink, and the shot fills the slots anew."""
    window, seen = Window(4), []
    for block in range(8):
        window.begin(block, alone=block in (3, 4))
        assert window.begin(block) == window.slot  # it was interrupted: the same slot again
        seen.append(window.attended())
        window.end(cut=block in (3, 4))
        window.check_integrity()
    assert seen[2:] == [(0, 1, 2), (0, 3), (0, 4), (0, 4, 5), (0, 4, 5, 6), (0, 4, 6, 7)]
    window.restore(window.state())


def test_a_block_alone_keeps_what_there_is_of_the_sink() -> None:
    """A cut inside a global sink of two blocks evicts neither."""
    window = Window(4, sinks=2)
    for block in range(4):
        window.begin(block, alone=block in (1, 3))
        window.end(cut=block in (1, 3))
    assert window.attended() == (0, 1, 3)
