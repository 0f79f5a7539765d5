"""Recalled blocks in the window: which blocks a shot attends, what is moved, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from longlive.longlive_core.memory import MemoryConfig, PoolShape, PoolSpec, Window
from longlive.longlive_core.memory.window import copy_of, original_of
from longlive.longlive_core.types import BlockSpec


def run(window: Window, cuts: set[int], blocks: int, recalls: Mapping[int, tuple[int, ...]], again: bool = False):  # noqa: ANN201
    """Yields what each block attends, and how the blocks in the slots got there. A shot begins at each cut."""
    slots: dict[int, tuple[int, str]] = {}
    wanted: tuple[int, ...] = ()
    for block in range(blocks):
        if block == 0 or block in cuts:
            wanted = recalls.get(block, ())
            for source, target in window.recall(wanted, again=again):
                slots[target] = slots[source]
            while window.entering:
                slots[len(window.held_sinks)] = (window.entering[0], "entered")
                move = window.entered()
                slots[move.target] = slots[move.source]
        slots[window.begin(block)] = (block, "own")
        assert [slots[slot][0] for slot in range(len(window.blocks))] == list(window.blocks)
        yield window.attended(), {held: how for held, how in slots.values() if held in window.blocks}
        window.end(cut=block in cuts)
        window.check_integrity()


def attended(*arguments: object, **options: object) -> list[tuple[int, ...]]:
    return [seen for seen, _ in run(*arguments, **options)]  # type: ignore[arg-type]


def test_a_recalled_block_stays_as_long_as_its_shot() -> None:
    """From the first block of the shot that recalls it to its last one, and in no block of the next shot."""
    assert attended(Window(4), {2, 5, 8, 10}, 12, {8: (2,)})[5:] == [
        (0, 2, 4, 5),
        (0, 4, 5, 6),
        (0, 5, 6, 7),
        (0, 2, 5, 8),
        (0, 2, 8, 9),
        (0, 8, 9, 10),
        (0, 9, 10, 11),
    ]


def test_a_wide_window_loses_them_with_their_shot_too() -> None:
    """Where older blocks than the recalled ones would still fit."""
    seen = attended(Window(8), {2, 4, 6, 9, 12, 13}, 14, {12: (2, 3)})
    assert {2, 3} <= {*seen[12]} and not {2, 3} & {*seen[13]}


def test_without_recalls_a_shot_begins_as_before() -> None:
    """A window that is told of shots which recall nothing is the one that is told of none, slot by slot."""
    told, plain = Window(4), Window(4)
    for block in range(20):
        assert told.recall(()) == () and not told.entering
        assert told.begin(block) == plain.begin(block)
        for window in (told, plain):
            window.end(cut=block % 3 == 2)
    assert told.state() == plain.state()


def test_a_block_that_is_in_the_window_is_not_entered_again() -> None:
    """At its original position it stays in its slot; `again` it enters at another one, and of a global sink a copy."""
    *_, (seen, held) = run(Window(5), {2, 4}, 5, {4: (0, 3)})
    assert seen == (0, 1, 2, 3, 4) and held[3] == held[0] == "own"
    *_, (seen, held) = run(Window(5), {2, 4}, 5, {4: (0, 3)}, again=True)
    assert seen == (copy_of(0), 0, 2, 3, 4) and held[3] == held[copy_of(0)] == "entered" and held[0] == "own"
    assert [original_of(block) for block in seen] == [0, 0, 2, 3, 4] and original_of(-3) == -3


def test_each_block_enters_in_the_slot_behind_the_sinks() -> None:
    """Its clean pass attends the slots up to there: the global sinks and itself. Then it moves to a slot of its own."""
    window = Window(6)
    assert len(attended(window, {2, 4, 6}, 9, {})) == 9
    moves = window.recall((2, 3))
    assert window.entering == (2, 3) and window.blocks[:3] == (0, 3, 2) and moves
    assert window.entered() == (1, 2)
    assert window.entered() == (1, 1)
    assert not window.entering


def test_a_recache_keeps_recalled_blocks() -> None:
    """The recache at a cut evicts all but the global sinks, the recalled blocks and the cut block."""
    window = Window(5)
    assert len(attended(window, {3}, 7, {})) == 7
    window.recall((2,))
    window.entered()
    window.begin(7)
    window.recache()
    assert window.blocks == (0, 2, 7) and window.recalled == (2,)


@given(st.data())
def test_moves_never_lose_a_block(data: st.DataObject) -> None:
    """Whatever is recalled, in any window: slots hold what the window says, and pinned blocks are attended."""
    sinks, shot_sink = data.draw(st.integers(0, 2)), data.draw(st.booleans())
    fits = data.draw(st.integers(1, 3))
    slots = sinks + shot_sink + 1 + fits + data.draw(st.integers(0, 2))
    cuts = data.draw(st.sets(st.integers(1, 24)))
    recalls = {
        cut: tuple(data.draw(st.lists(st.integers(0, cut - 1), max_size=fits, unique=True))) for cut in sorted(cuts)
    }
    window, shot = Window(slots, sinks=sinks, shot_sink=shot_sink), 0
    again = data.draw(st.booleans())
    for block, (seen, _) in enumerate(run(window, cuts, 25, recalls, again)):
        shot = block if block in cuts else shot
        wanted = {copy_of(other) if again and other < sinks else other for other in recalls.get(shot, ())}
        assert {*wanted, *range(min(sinks, block)), block} <= set(seen)
        assert len(seen) == len(set(seen)) <= slots


def test_an_interrupted_entrance_goes_on() -> None:
    """Called again for the same block, nothing moves twice, and the blocks that have entered do not enter again."""
    window = Window(6)
    assert len(attended(window, {2, 4, 6}, 9, {})) == 9
    window.recall((2, 3))
    window.entered()
    blocks = window.blocks
    with pytest.raises(RuntimeError, match=r"recalled blocks \(3,\) have not entered"):
        window.begin(9)
    with pytest.raises(RuntimeError, match="no state while"):
        window.state()
    assert window.recall((2, 3)) == () and (window.blocks, window.entering) == (blocks, (3,))


def test_a_restored_window_knows_what_is_recalled() -> None:
    """A state within a shot holds its recalled blocks, which are pinned in the restored window, too."""
    first, second = Window(4), Window(4)
    assert len(attended(first, {2, 5}, 7, {5: (2,)})) == 7
    second.restore(first.state())
    for window in (first, second):
        window.begin(7)
    assert first.blocks == second.blocks and 2 in second.blocks


def test_only_earlier_blocks_are_recalled_and_between_blocks() -> None:
    window = Window(4)
    for wrong in ((0,), (-1, 2)):
        with pytest.raises(RuntimeError, match="cannot be recalled before block 0"):
            window.recall(wrong)
    window.begin(0)
    with pytest.raises(RuntimeError, match="cannot be recalled"):
        window.recall(())


@given(st.data())
def test_cast_blocks_are_held_as_long_as_their_shot(data: st.DataObject) -> None:
    """In any window and any shot, the first one too: they enter anew in each, and are gone in the next."""
    sinks, fits = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 3))
    cuts = data.draw(st.sets(st.integers(1, 12)))
    recalls = {
        cut: tuple(data.draw(st.lists(st.integers(-3, cut - 1), max_size=fits, unique=True))) for cut in (0, *cuts)
    }
    window, shot = Window(sinks + 2 + fits, sinks=sinks), 0
    again = data.draw(st.booleans())
    for block, (seen, held) in enumerate(run(window, cuts, 14, recalls, again)):
        shot = block if block in cuts else shot
        wanted = {copy_of(other) if again and 0 <= other < sinks else other for other in recalls[shot]}
        assert {*wanted, *range(min(sinks, block)), block} <= {*seen}
        assert {other for other in seen if other < 0} == {other for other in wanted if other < 0}
        assert all(held[other] == "entered" for other in seen if other < 0)


def spec(index: int, shot: int, recalled: tuple[int, ...] = ()) -> BlockSpec:
    return BlockSpec(index, shot, "", shot > 0, None, 8 * index, 8, recalled)


def test_too_many_are_refused_with_what_fits() -> None:
    """Each takes a slot beside the sinks and the new block; at its original position a global sink takes none.

    The message says so where it would help.
    """
    blocks = [spec(0, 0), spec(1, 0), spec(2, 0), spec(3, 1, (0, 1, 2))]
    original = MemoryConfig(recall_position="original")
    with pytest.raises(ValueError, match=r"shot 2 recalls 2 blocks, but 1 fits .*of 32 .*set window to 40 or more$"):
        original.check_recalled(blocks, 8)
    with pytest.raises(
        ValueError,
        match=r"shot 2 recalls 3 blocks, but 2 fit .*of 40 .*set window to 48 or more; at recall_position original",
    ):
        MemoryConfig(window=40).check_recalled(blocks, 8)
    with pytest.raises(ValueError, match=r"but none fit .*set window to 32 or more$"):
        MemoryConfig(window=24).check_recalled([spec(0, 0), spec(1, 0), spec(2, 1, (1,)), spec(3, 2, (2,))], 8)
    replace(original, window=40).check_recalled(blocks, 8)
    MemoryConfig(window=40, relative_rope=True).check_recalled(blocks, 8)
    assert MemoryConfig(shot_sink=False).recallable(8) == 2 and MemoryConfig(sink=0).recallable(8) == 3


def test_positions_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="recall_position 'later' is not known; choose one of original, before_shot"):
        MemoryConfig(recall_position="later").check(8)  # type: ignore[arg-type]


@pytest.mark.parametrize("kv_format", ["float32", "fp8", "nvfp4", "q2"])
def test_a_move_copies_a_slot_to_the_bit(kv_format: str) -> None:
    """In every layer, whatever the format stores; the other slots stay."""
    shape = PoolShape(layers=2, batch=2, slots=3, block_tokens=4, heads=2, head_dim=16)
    (pool,) = PoolSpec(kv_format, shape, torch.float32, "token").make(torch.device("cpu"))
    for layer in range(2):
        for slot in range(3):
            for new in pool.new_block(layer, slot):
                new.copy_(torch.randn(new.shape, generator=torch.Generator().manual_seed(9 * layer + slot)))
            pool.commit(layer, slot, clean=True)
    before = [tensor.clone() for tensor in pool.tensors(3)]
    pool.move(2, 0)
    for was, now in zip(before, pool.tensors(3), strict=True):
        was, now = (t.reshape(2, 3, -1) for t in (was.view(torch.uint8), now.contiguous().view(torch.uint8)))
        assert torch.equal(now[:, 0], was[:, 2]) and torch.equal(now[:, 1:], was[:, 1:])
