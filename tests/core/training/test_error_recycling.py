"""Error recycling: buckets, what is injected where, the order of random draws, and what is stored."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import torch
from longlive.longlive_core.training.error_recycling import (
    BlockErrors,
    ErrorBuffer,
    ErrorBuffers,
    ErrorRecyclingSettings,
    block_errors,
)
from torch import Tensor

ALWAYS = ErrorRecyclingSettings(clean=0, noise=1, latent=1, context=1)
SMALL = ErrorRecyclingSettings(buckets=5, entries=3)


def number(value: float) -> Tensor:
    """An error of a block of 1 channel, 2 frames and 1 cell."""
    return torch.full((1, 2, 1, 1), float(value))


def filled(settings: ErrorRecyclingSettings = ALWAYS) -> ErrorBuffers:
    """Buffers with errors 1 (noise: 10) in the bucket of index 900, and 2 (noise: 20) in that of index 100."""
    buffers, rng = ErrorBuffers(settings), Random(0)
    for index, value in ((900, 1.0), (100, 2.0)):
        buffers.store([BlockErrors(index, number(value), number(10 * value))], rng)
    return buffers


def test_a_bucket_is_twenty_timestep_indices() -> None:
    """50 buckets split the 1000 indices evenly, and an index outside raises an error."""
    buffer = ErrorBuffer(ErrorRecyclingSettings())
    assert [buffer.bucket(index) for index in (0, 19, 20, 900, 999)] == [0, 0, 1, 45, 49]
    for outside in (-1, 1000):
        with pytest.raises(ValueError, match="outside 0 … 999"):
            buffer.bucket(outside)


@pytest.mark.parametrize(
    ("shards", "shard", "expected"),
    [(1, 0, [0, 1, 2, 3, 4]), (2, 0, [0, 2, 2, 4, 4]), (2, 1, [1, 1, 3, 3, 3]), (4, 2, [2, 2, 2, 2, 2])],
)
def test_a_rank_reads_its_nearest_bucket_and_drops_the_others(shards: int, shard: int, expected: list[int]) -> None:
    """A rank holds each `shards`-th bucket; reads of the others go to the nearest one, upwards when equally near."""
    buffer, rng = ErrorBuffer(SMALL, shard, shards), Random(0)
    assert [buffer.bucket_read(bucket) for bucket in range(5)] == expected
    for bucket in range(5):
        buffer.add(200 * bucket, number(bucket), rng)
    assert len(buffer) == len(set(expected))
    read = [buffer.sample(200 * bucket, rng) for bucket in range(5)]
    assert [round(float(error.mean()) / bucket) if bucket else 1 for error, bucket in zip(read, expected, strict=True)
            if error is not None] == [1] * 5  # fmt: skip


def test_a_full_bucket_replaces_a_random_error() -> None:
    """The number of errors stays the same, and the place of the new one is drawn as `randint(0, entries - 1)`."""
    buffer, rng, same = ErrorBuffer(SMALL), Random(3), Random(3)
    for value in range(3):
        buffer.add(0, number(value), rng)
    assert rng.getstate() == same.getstate()
    buffer.add(0, number(9), rng)
    expected = [0.0, 1.0, 2.0]
    expected[same.randint(0, 2)] = 9.0
    assert [float(error.mean()) for error in buffer.errors(0)] == expected


def test_errors_are_copies() -> None:
    """A stored error does not change with the tensor that it came from, and has no graph."""
    buffer, error = ErrorBuffer(SMALL), number(1).requires_grad_()
    buffer.add(0, error, Random(0))
    error.data.fill_(5)
    assert float(buffer.errors(0)[0].mean()) == 1 and not buffer.errors(0)[0].requires_grad


def test_draws_are_made_in_the_order_of_the_reference() -> None:
    """Noise, latents, context: a decision each, then for each block a choice and a factor within 1 ± 0.3."""
    buffers, rng = filled(), Random(5)
    clean, noise, context = torch.zeros(3, 1, 1, 4, 1, 1)
    injected = buffers.inject(clean, noise, context, torch.tensor([[900, 100]]), Random(5))
    rng.random()
    expected_noise = [rng.choice([value]) * rng.uniform(0.7, 1.3) for value in (10.0, 20.0)]
    rng.random()
    expected_latents = [rng.choice([value]) * rng.uniform(0.7, 1.3) for value in (1.0, 2.0)]
    rng.random()
    expected_context = [rng.choice([2.0, 1.0]) * rng.uniform(0.7, 1.3) for _ in range(2)]  # in the order of buckets
    for value, expected in (
        (injected.noise, expected_noise),
        (injected.latents, expected_latents),
        (injected.context, expected_context),
    ):
        torch.testing.assert_close(value.flatten(), torch.tensor(expected).repeat_interleave(2))
    assert injected.injections == ("noise", "latent", "context")
    assert not noise.any() and not clean.any() and not context.any()


def test_every_film_gets_errors_of_its_own() -> None:
    """Each block of each film of a batch draws for itself."""
    zeros = torch.zeros(2, 1, 4, 1, 1)
    injected = filled().inject(zeros, zeros, zeros, torch.tensor([[900, 900], [900, 900]]), Random(5))
    assert len(injected.latents.flatten().unique()) == 4


def test_a_block_without_errors_at_its_level_is_left_alone() -> None:
    """Noise and latents of a block whose bucket is empty do not change; its context does."""
    zeros = torch.zeros(1, 1, 4, 1, 1)
    injected = filled().inject(zeros, zeros, zeros, torch.tensor([[500, 900]]), Random(5))
    for x in (injected.noise, injected.latents):
        assert (x.flatten() != 0).tolist() == [False, False, True, True]
    assert bool((injected.context != 0).all())


def test_empty_buffers_inject_nothing_and_draw_nothing() -> None:
    """Without errors there is no decision either."""
    zeros, rng = torch.zeros(1, 1, 4, 1, 1), Random(5)
    injected = ErrorBuffers(ALWAYS).inject(zeros, zeros, zeros, torch.tensor([[500, 900]]), rng)
    assert injected.injections == () and rng.getstate() == Random(5).getstate()


def share(happened: Callable[[int], bool], trials: int = 4000) -> float:
    """The share of seeds for which something happens."""
    return sum(happened(seed) for seed in range(trials)) / trials


def test_probabilities_are_those_of_the_settings() -> None:
    """A fifth of the steps is clean; of the others, 1 % get noise errors, 90 % latent and 90 % context errors."""
    buffers, zeros = filled(ErrorRecyclingSettings()), torch.zeros(1, 1, 2, 1, 1)
    steps = [buffers.inject(zeros, zeros, zeros, torch.tensor([[900]]), Random(seed)) for seed in range(4000)]
    dirty = [step for step in steps if not step.clean_step]
    assert 1 - len(dirty) / len(steps) == pytest.approx(0.2, abs=0.03)
    assert all(step.injections == () for step in steps if step.clean_step)
    for name, probability in (("noise", 0.01), ("latent", 0.9), ("context", 0.9)):
        found = sum(name in step.injections for step in dirty) / len(dirty)
        assert found == pytest.approx(probability, abs=0.01 if name == "noise" else 0.03)


def test_errors_of_a_clean_step_are_stored_with_a_tenth_probability() -> None:
    """Errors of other steps are always stored, without a draw."""
    buffers = ErrorBuffers(ErrorRecyclingSettings())
    assert share(lambda seed: buffers.should_store(True, Random(seed))) == pytest.approx(0.1, abs=0.02)
    rng = Random(5)
    assert buffers.should_store(False, rng) and rng.getstate() == Random(5).getstate()


def test_errors_of_blocks() -> None:
    """In latents: predicted − clean. In noise: (1 − sigma) · (flow − target), with the sigma of each block."""
    clean, predicted, flow, target = torch.arange(4 * 8.0).reshape(4, 2, 1, 4, 1, 1).square()
    sigmas = torch.tensor([[0.25, 0.5], [0.75, 1.0]])
    errors = block_errors(clean, predicted, flow, target, torch.tensor([[1, 2], [3, 4]]), sigmas)
    assert [error.index for error in errors] == [1, 2, 3, 4]
    for error, film, block in zip(errors, (0, 0, 1, 1), (0, 1, 0, 1), strict=True):
        frames = slice(2 * block, 2 * block + 2)
        assert torch.equal(error.latent, (predicted - clean)[film, :, frames])
        expected = (1 - sigmas[film, block]) * (flow - target)[film, :, frames]
        assert torch.equal(error.noise, expected)


def test_a_checkpoint_restores_every_error_in_its_place() -> None:
    """After a restore the same draws give the same errors, and later stores replace the same ones."""
    settings = ErrorRecyclingSettings(entries=11, clean=0, noise=1, latent=1, context=1)
    buffers, rng = ErrorBuffers(settings), Random(1)
    for value in range(40):
        buffers.store([BlockErrors(20 * (value % 3), number(value), number(-value))], rng)
    other = ErrorBuffers(settings)
    other.load_state_dict(buffers.state_dict())
    for bucket in range(50):
        ours, theirs = buffers.latent.errors(bucket), other.latent.errors(bucket)
        assert [float(x.mean()) for x in ours] == [float(x.mean()) for x in theirs]
    zeros, indices = torch.zeros(1, 1, 4, 1, 1), torch.tensor([[0, 41]])
    mine, restored = (each.inject(zeros, zeros, zeros, indices, Random(2)) for each in (buffers, other))
    assert torch.equal(mine.noise, restored.noise) and torch.equal(mine.context, restored.context)
    other.load_state_dict({})
    assert len(other.latent) == len(other.noise) == 0


@pytest.mark.parametrize(
    ("state", "message"),
    [({"5.0": number(1)}, "errors of bucket 5"), ({f"0.{i}": number(1) for i in range(4)}, "has 4 errors in a bucket")],
)
def test_errors_that_do_not_fit_are_refused(state: dict[str, Tensor], message: str) -> None:
    """Errors of other settings raise an error and leave the buffer as it was."""
    buffer = ErrorBuffer(SMALL)
    buffer.add(0, number(7), Random(0))
    with pytest.raises(ValueError, match=message):
        buffer.load_state_dict(state)
    assert len(buffer) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"clean": 1.2}, "clean = 1.2"), ({"buckets": 3}, "3 buckets"), ({"entries": 0}, "at least one error")],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    """A probability above 1, buckets that do not split the table and buckets without room raise an error."""
    with pytest.raises(ValueError, match=message):
        ErrorRecyclingSettings(**settings)  # pyright: ignore[reportArgumentType]
