"""The noise that sampling starts from. Pure functions of seeds and block indices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from ..types import BlockSpec, LatentShape

MAX_SEED = 2**64 - 1

NoiseSource = Callable[[BlockSpec, LatentShape], Tensor]


def noise(seed: int, shot_seed: int | None, block: int, shape: LatentShape) -> Tensor:
    """Noise of one block, `[B, C, F, H, W]`, float32 on the CPU.

    It depends on the film's seed, the shot's own seed and the block's index, and on nothing else: not on the length of
    the film, the device or the other blocks. Each film of a batch has its own stream, so a batch begins with the
    films of a smaller one. Raises ValueError for a seed outside 0 … 2^64 − 1.
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
    """Each block's own noise, from `noise`: a longer film begins with the shorter one."""
    return lambda spec, shape: noise(seed, spec.seed, spec.index, shape)


def film_noise(film: Tensor) -> NoiseSource:
    """Noise cut from one tensor for the whole film, `[B, C, F, H, W]`, as the reference implementation draws it."""

    def cut(spec: BlockSpec, shape: LatentShape) -> Tensor:
        piece = film[:, :, spec.start : spec.start + spec.frames]
        if piece.shape != shape.as_tuple():
            raise ValueError(f"noise {tuple(film.shape)} has no {shape.as_tuple()} for block {spec.index}")
        return piece

    return cut
