"""Noise levels of training: the table, what a timestep looks up in it, and the random draws."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.training.schedule import TimestepTable, block_indices, clip_indices, dmd_timesteps

TABLE = TimestepTable.shifted()
EVERY = torch.arange(1000)


def test_the_table_is_computed_in_float32() -> None:
    """sigma = 5 b / (1 + 4 b) in float32, where float64 would round some entries to another number."""
    base = torch.linspace(1, 0, 1001)[:1000]
    assert torch.equal(TABLE.sigmas, 5 * base / (1 + 4 * base))
    assert torch.equal(TABLE.timesteps, 1000 * TABLE.sigmas)
    assert float(TABLE.timesteps[999]) == pytest.approx(4.98008)


def test_of_two_equally_near_entries_the_first_is_taken() -> None:
    """A timestep halfway between two entries belongs to the noisier one, and one outside the table to its end."""
    table = TimestepTable(torch.tensor([1.0, 0.5, 0.25]), torch.tensor([1000.0, 500.0, 250.0]), torch.ones(3))
    assert table.index(torch.tensor([[750.0, 749.0], [375.0, 374.0]])).tolist() == [[0, 1], [1, 2]]
    assert table.index(torch.tensor([2000.0, 0.0])).tolist() == [0, 2]


def test_a_given_timestep_is_passed_on_and_its_nearest_entry_gives_the_noise() -> None:
    """At t = 0 the model gets 0, and the noise is that of the last entry."""
    levels = TABLE.at(torch.tensor([[0.0, 500.0]]))
    assert levels.timesteps.tolist() == [[0.0, 500.0]]
    assert levels.sigmas[0, 0] == TABLE.sigmas[999] and levels.weights[0, 0] == TABLE.weights[999]


def test_bf16_timesteps_leave_294_levels() -> None:
    """Rounded to bfloat16, 294 timesteps are left, and sigma and weight are those of the entry nearest to them."""
    exact, rounded = TABLE.levels(EVERY), TABLE.levels(EVERY, bf16=True)
    assert torch.equal(exact.timesteps, TABLE.timesteps) and torch.equal(exact.sigmas, TABLE.sigmas)
    assert len(rounded.timesteps.unique()) == 294
    assert torch.equal(rounded.timesteps, TABLE.timesteps.bfloat16().float())
    assert 0.002 < float((rounded.sigmas - exact.sigmas).abs().max()) < 0.0026
    assert 0.012 < float((rounded.weights - exact.weights).abs().max()) < 0.014


def test_a_block_takes_the_draw_of_its_first_frame() -> None:
    """An index is drawn for every frame, and the frames of a block share that of its first one."""
    drawn = torch.randint(1000, (3, 8), generator=torch.Generator().manual_seed(7))
    indices = block_indices(3, 8, 2, generator=torch.Generator().manual_seed(7))
    assert torch.equal(indices, drawn[:, [0, 0, 2, 2, 4, 4, 6, 6]])
    drawn = torch.randint(1000, (3, 9), generator=torch.Generator().manual_seed(7))
    indices = block_indices(3, 9, 2, single_first_frame=True, generator=torch.Generator().manual_seed(7))
    assert torch.equal(indices, drawn[:, [0, 1, 1, 3, 3, 5, 5, 7, 7]])


def test_a_clip_takes_one_draw() -> None:
    """All frames of a clip share one index, and clips differ."""
    drawn = torch.randint(1000, (3, 1), generator=torch.Generator().manual_seed(7))
    assert torch.equal(clip_indices(3, 8, generator=torch.Generator().manual_seed(7)), drawn.expand(3, 8))


@pytest.mark.parametrize(
    ("frames", "single", "message"),
    [(7, False, "7 latent frames are not whole"), (8, True, "after the first frame"), (1, True, "after the first")],
)
def test_part_of_a_block_is_refused(frames: int, single: bool, message: str) -> None:
    """Frames that are not whole blocks raise an error."""
    with pytest.raises(ValueError, match=message):
        block_indices(1, frames, 2, single_first_frame=single)


def test_distillation_draws_shifted_timesteps_within_its_bounds() -> None:
    """t = 1000 · 5 s / (1 + 4 s), at least 20 and at most 980."""
    t = dmd_timesteps(torch.tensor([[0, 3, 500], [200, 999, 995]]))
    expected = torch.tensor([[20.0, 20.0, 2500 / 3], [1000 / 1.8, 980.0, 980.0]])
    torch.testing.assert_close(t, expected)
    assert bool((dmd_timesteps(EVERY).diff() >= 0).all())
