"""The pace of a film is that of the blocks that are sampled."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from longlive.longlive_core.film.pace import Pace
from longlive.longlive_core.sampling import Step
from longlive.longlive_core.script import ShotScript

BLOCKS = ShotScript.parse("Shot 1 (20 blocks): a fox").plan().blocks
STEPS = 4


def pace(blocks: Iterable[int], begin: float, pauses: dict[int, float]) -> float:
    """The pace after blocks with a step each second; `pauses` are seconds before the first step of a block."""
    now = [begin]
    measured = Pace(lambda: now[0])
    for block in blocks:
        now[0] += pauses.get(block, 0)
        for index in range(1, STEPS + 1):
            now[0] += 1
            measured.step(Step(BLOCKS[block], index, STEPS, torch.empty(0)))
    return measured.blocks_per_second


@pytest.mark.parametrize("replayed", [0, 9])
def test_the_first_step_gives_an_estimate(replayed: int) -> None:
    """Since the last stored block, the step and the passes before it that rebuilt the KV cache took a second each."""
    now = [0.0]
    measured = Pace(lambda: now[0])
    assert measured.blocks_per_second == 0
    now[0] = 283.0
    measured.begin()
    now[0] += 1 + replayed
    measured.step(Step(BLOCKS[15], 1, STEPS, torch.empty(0)), replayed)
    assert measured.blocks_per_second == pytest.approx(1 / STEPS)


@pytest.mark.parametrize(
    ("blocks", "begin", "pauses"),
    [
        (range(5), 0, {}),
        (range(5), 1000, {}),
        (range(15, 20), 0, {15: 283}),  # after a resume: 15 stored blocks are decoded and replayed first
        ((2, 3, 10, 11), 0, {10: 60}),  # stored blocks between retaken shots
        ((7,), 0, {7: 99}),
    ],
)
def test_only_sampling_counts(blocks: Iterable[int], begin: float, pauses: dict[int, float]) -> None:
    """A block of four steps of a second each takes four seconds, whatever was loaded or replayed before and between."""
    assert pace(blocks, begin, pauses) == pytest.approx(1 / STEPS)


def test_a_slow_block_counts() -> None:
    """Time between one sampled block and the next is part of sampling: its clean pass, or a decoder that is slower."""
    assert pace(range(2), 0, {1: 4}) == pytest.approx(7 / 4 / 11)
