"""Keys, or values, of one layer in 2 bits: 5 bytes or less where bf16 has 32."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels import quantize_q2, read_q2
from ...kernels.q2_format import group_of, index_bits, pack_indices
from .centroids import fit_centroids
from .pool import PoolShape

BUDGET = 5 / 32
"""Bytes of the format relative to bf16, where the block is large enough to pay for its centroids."""

LAYOUTS = ((4, 16), (3, 16), (4, 8), (2, 16), (4, 4), (1, 16), (2, 4), (1, 4), (1, 2))
"""Stages, and centroids of each, from the best to the smallest. A single centroid, the mean, needs no indices."""


def layout(tokens: int, width: int) -> tuple[int, int]:
    """Stages and centroids of each: the best layout within the budget for blocks of `tokens` and heads of `width`."""
    allowed = BUDGET * 2 * width * tokens
    fits = (pair for pair in LAYOUTS if tokens * pair[0] * index_bits(pair[1]) % 8 == 0)
    return next((pair for pair in fits if head_bytes(tokens, width, *pair) <= allowed), (1, 1))


def head_bytes(tokens: int, width: int, stages: int, count: int) -> int:
    """Bytes of one head's keys, or values, of one block."""
    numbers = tokens * width
    indices = tokens * stages * index_bits(count) // 8
    return numbers // 4 + numbers // group_of(width) + indices + stages * (count * width + 4) + width


class Q2Store:
    """The quantised keys, or values, of one layer in the q2 format; see `kernels.q2_format` and `fit_centroids`.

    Every head of every block has its own centroids, so that ranks which share the heads store what one rank stores.
    They are its smoothing: centring would change nothing.
    """

    def __init__(self, shape: PoolShape, device: torch.device, centred: bool) -> None:  # noqa: ARG002
        self.slots, width = shape.slots, shape.head_dim
        self._layout = stages, count = layout(shape.block_tokens, width)

        def empty(entries: int, numbers: int, dtype: torch.dtype) -> Tensor:
            size = (shape.batch, shape.slots, entries, shape.own_heads, numbers)
            return torch.empty(size, dtype=dtype, device=device)

        tokens = shape.block_tokens
        self._codes = empty(tokens, width // 4, torch.uint8)
        self._scales = empty(tokens, width // group_of(width), torch.float8_e4m3fn)
        self._indices = empty(tokens * stages * index_bits(count) // 8, 1, torch.uint8)
        self._centroids = empty(stages * count, width, torch.int8)
        self._channels = empty(1, width, torch.float8_e4m3fn)
        self._steps = empty(stages, 1, torch.float32)

    def append(self, slot: int, x: Tensor) -> None:
        """See `FP8Store.append`."""
        fitted = fit_centroids(x, *self._layout)
        spread = fitted.channels.float() * fitted.steps[:, -1:]
        codes, scales = quantize_q2(fitted.residual, spread)
        indices = pack_indices(fitted.indices, self._layout[1])
        parts = (codes, scales, indices, fitted.values, fitted.channels, fitted.steps)
        for own, part in zip(self.tensors(self.slots), parts, strict=True):
            own[:, slot].copy_(part)

    def read(self, slots: list[int], out: Tensor) -> None:
        """See `FP8Store.read`."""
        read_q2(*self._all, slots, out)

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """See `DensePool.tensors`."""
        return tuple(tensor[:, :filled] for tensor in self._all)

    @property
    def _all(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self._codes, self._scales, self._indices, self._centroids, self._channels, self._steps
