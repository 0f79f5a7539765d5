"""The UniPC schedule against the reference's numbers and an exact solution, and the noise of blocks."""

from __future__ import annotations

import math

import pytest
import torch
from longlive.longlive_core.sampling.noise import MAX_SEED, block_noise, film_noise, noise
from longlive.longlive_core.sampling.unipc import unipc
from longlive.longlive_core.types import BlockSpec, LatentShape

SHAPE = LatentShape(1, 4, 2, 3, 5)


@pytest.mark.parametrize(
    ("steps", "timesteps", "sigmas"),
    [
        (4, (999, 937, 833, 624), (0.99979985, 0.93726546, 0.83305538, 0.62468737, 0)),
        (3, (999, 908, 713), (0.99979985, 0.90884279, 0.71397942, 0)),
        (2, (999, 833), (0.99979985, 0.83305538, 0)),
        (1, (999,), (0.99979985, 0)),
    ],
)
def test_noise_levels_of_the_reference(steps: int, timesteps: tuple[int, ...], sigmas: tuple[float, ...]) -> None:
    """The timesteps and noise levels are those of the reference."""
    schedule = unipc(steps)
    assert schedule.timesteps == timesteps
    assert schedule.sigmas == pytest.approx(sigmas, abs=2e-8)


@pytest.mark.parametrize(
    ("steps", "rows"),
    [
        (2, [[1, -0.1667445], [1, -0.1667445, -0.8330554]]),
        (3, [[1, -0.0909570], [1, -0.0367763, -0.2490441], [1, -0.0367763, -0.2490441, -0.7139794]]),
        (
            4,
            [
                [1, -0.0625344],
                [1, -0.0266509, -0.1400936],
                [1, -0.0274610, 0.0041767, -0.3518282],
                [1, -0.0274610, 0.0041767, -0.3518282, -0.6246874],
            ],
        ),
    ],
)
def test_weights_of_the_reference(steps: int, rows: list[list[float]]) -> None:
    """The weights of noise and flows in every UniPC step are those of the reference."""
    for row, expected in zip(unipc(steps).rows, rows, strict=True):
        assert row == pytest.approx(expected, abs=1e-7)


def test_more_steps_come_closer_to_the_exact_solution() -> None:
    """For Gaussian data the exact flow is known, and with it the sample that each noise value maps to."""

    def end(steps: int, deviation: float = 0.5) -> float:
        schedule = unipc(steps)
        x = start = torch.tensor([1.0])
        flows: list[torch.Tensor] = []
        for sigma in schedule.sigmas[:-1]:
            variance = ((1 - sigma) * deviation) ** 2 + sigma**2
            flows.append(x * (sigma - (1 - sigma) * deviation**2) / variance)
            x = schedule.advance(start, flows)
        return float(x)

    first = unipc(1).sigmas[0]
    exact = 0.5 / math.sqrt(((1 - first) * 0.5) ** 2 + first**2)
    errors = [abs(end(steps) - exact) for steps in (2, 4, 8, 16, 60, 240)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    """Steps outside 1 … 1000 are refused."""
    with pytest.raises(ValueError, match=f"steps {steps} is outside 1 … 1000"):
        unipc(steps)


def test_noise_depends_on_seed_shot_and_block_alone() -> None:
    """Noise is the same for the same seed, shot seed and block, and differs if one of them differs."""
    base = noise(7, None, 3, SHAPE)
    assert torch.equal(base, noise(7, None, 3, SHAPE))
    for other in (noise(8, None, 3, SHAPE), noise(7, 1, 3, SHAPE), noise(7, None, 4, SHAPE)):
        assert not torch.equal(base, other)
    assert not torch.equal(noise(7, 1, 3, SHAPE), noise(8, 1, 3, SHAPE))


@pytest.mark.parametrize(
    ("shot_seed", "values"),
    [
        (None, (-0.6536837, -0.6677207, -0.7342139)),
        (0, (0.4740408, -0.756567, 1.620335)),
        (1, (-1.1622881, -0.3775253, 1.2403672)),
    ],
)
def test_a_seed_is_the_same_noise_for_ever(shot_seed: int | None, values: tuple[float, ...]) -> None:
    """A film is made again by its seed in any later version. The shot's seed 0 is a seed, and not the same as none."""
    assert noise(7, shot_seed, 3, SHAPE).flatten()[:3].tolist() == pytest.approx(values, abs=1e-6)


def test_the_first_films_of_a_batch_equal_a_smaller_batch() -> None:
    """Noise of a batch begins with that of a smaller batch, and its films differ."""
    many = noise(7, None, 0, LatentShape(3, 4, 2, 3, 5))
    assert torch.equal(many[:1], noise(7, None, 0, SHAPE))
    assert not torch.equal(many[0], many[1])


def test_noise_is_standard_normal() -> None:
    """Noise has mean 0 and standard deviation 1."""
    values = noise(1, 2, 3, LatentShape(1, 48, 8, 32, 32))
    assert abs(float(values.mean())) < 0.01
    assert float(values.std()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    """A seed or shot seed outside its range is refused."""
    with pytest.raises(ValueError, match="outside 0 …"):
        noise(seed, None, 0, SHAPE)
    with pytest.raises(ValueError, match=r"shot seed .* outside 0 …"):
        noise(0, seed, 0, SHAPE)


def test_film_noise_slices_one_tensor() -> None:
    """Film noise gives each block its frames of one tensor, and a tensor that ends before the block is refused."""
    film = torch.randn(1, 4, 6, 3, 5)
    spec = BlockSpec(1, 0, "", False, None, 2, 2)
    assert torch.equal(film_noise(film)(spec, SHAPE), film[:, :, 2:4])
    with pytest.raises(ValueError, match="does not contain block 1"):
        film_noise(film[:, :, :3])(spec, SHAPE)


def test_block_noise_takes_the_shots_own_seed() -> None:
    """Block noise depends on the shot's seed beside the film's, if the shot has one."""
    plain, seeded = BlockSpec(1, 1, "", False, None, 2, 2), BlockSpec(1, 1, "", False, 9, 2, 2)
    source = block_noise(5)
    assert torch.equal(source(plain, SHAPE), noise(5, None, 1, SHAPE))
    assert torch.equal(source(seeded, SHAPE), noise(5, 9, 1, SHAPE))
