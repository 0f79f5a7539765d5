"""Initial noise of each block, a pure function of the seeds and the block's index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..types import BlockSpec, LatentShape

MAX_SEED = 2**64 - 1

NoiseSource = Callable[[BlockSpec, LatentShape], Tensor]
"""Returns the noise of a block: (block, shape of its latents) → `[B, C, F, H, W]`."""


def noise(seed: int, shot_seed: int | None, block: int, shape: LatentShape) -> Tensor:
    """Gaussian noise of one block, `[B, C, F, H, W]`, float32 on the CPU.

    The noise depends on the film's seed, the shot's own seed and the block's index only, so that neither the length of
    the film nor the device changes it. Each film of a batch has a separate random stream, so that the first films of a
    batch equal those of a smaller batch. Raises ValueError for a seed outside 0 … 2^64 − 1.
    """
    for name, value in (("seed", seed), ("shot seed", shot_seed)):
        if value is not None and not 0 <= value <= MAX_SEED:
            raise ValueError(f"{name} {value} is outside 0 … {MAX_SEED}")
    rows: list[Tensor] = []
    for row in range(shape.batch):
        digest = hashlib.sha256(f"{seed}/{shot_seed}/{block}/{row}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
        rows.append(torch.randn(shape.as_tuple()[1:], generator=generator))
    return torch.stack(rows)


def block_noise(seed: int) -> NoiseSource:
    """A source that gives each block separate noise, so that a longer film starts like a shorter one; see `noise`."""
    return lambda spec, shape: noise(seed, spec.seed, spec.index, shape)


def film_noise(film: Tensor) -> NoiseSource:
    """A source that slices one noise tensor of the whole film, `[B, C, F, H, W]`, as the reference implementation does.

    The source raises ValueError for a block that the tensor does not cover.
    """

    def block(spec: BlockSpec, shape: LatentShape) -> Tensor:
        noise = film[:, :, spec.start : spec.start + spec.frames]
        if noise.shape != shape.as_tuple():
            raise ValueError(
                f"noise of shape {tuple(film.shape)} does not contain block {spec.index}, latent frames {spec.start} "
                f"to {spec.start + spec.frames - 1} in shape {shape.as_tuple()}"
            )
        return noise

    return block


def batch_noise(films: Sequence[tuple[NoiseSource, Sequence[BlockSpec]]]) -> NoiseSource:
    """A source for a batch, in which each film has the noise that it has alone: that of its source for its own blocks.

    The source raises ValueError for a shape with another number of films.
    """

    def block(spec: BlockSpec, shape: LatentShape) -> Tensor:
        if shape.batch != len(films):
            raise ValueError(f"the noise is of {len(films)} films, but the shape {shape.as_tuple()} has {shape.batch}")
        alone = shape.with_batch(1)
        return torch.cat([source(blocks[spec.index], alone) for source, blocks in films])

    return block
