"""Where keys and values live: a buffer of slots for each layer, written in place and read without a copy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..model import KeyValue, WanConfig


@dataclass(frozen=True, slots=True)
class PoolShape:
    """Size of a pool: `slots` blocks of `block_tokens` tokens in each of `layers` layers."""

    layers: int
    batch: int
    slots: int
    block_tokens: int
    heads: int
    head_dim: int

    @classmethod
    def of(cls, config: WanConfig, *, batch: int, slots: int, block_tokens: int) -> PoolShape:
        return cls(config.num_layers, batch, slots, block_tokens, config.num_heads, config.head_dim)

    def empty(self, dtype: torch.dtype, device: torch.device) -> KeyValue:
        """Room for one layer's keys and values, `[B, slots · block_tokens, H, D]` each."""
        size = (self.batch, self.slots * self.block_tokens, self.heads, self.head_dim)
        return KeyValue(torch.empty(size, dtype=dtype, device=device), torch.empty(size, dtype=dtype, device=device))

    def rows(self, kept: KeyValue, slot: int) -> KeyValue:
        """Views of one slot."""
        rows = slice(slot * self.block_tokens, (slot + 1) * self.block_tokens)
        return KeyValue(kept.k[:, rows], kept.v[:, rows])


class Pool(Protocol):
    """Storage of one memory. Formats differ in what they keep; all of them are read as the model's own dtype."""

    @property
    def shape(self) -> PoolShape: ...

    def place(self, layer: int, slot: int) -> KeyValue:
        """Where the new block's keys and values are to be written, `[B, block_tokens, H, D]`: views."""
        ...

    def keep(self, layer: int, slot: int, *, clean: bool) -> None:
        """They were written. clean is false while the block is still noisy: a format that compresses waits."""
        ...

    def get(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        """The first `filled` slots as `[B, filled · block_tokens, H, D]`."""
        ...

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """Views of all that must survive to read the first `filled` slots again, in a fixed order."""
        ...


class DensePool:
    """Slots of plain numbers."""

    def __init__(self, shape: PoolShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self._layers = [shape.empty(dtype, device) for _ in range(shape.layers)]

    def place(self, layer: int, slot: int) -> KeyValue:
        return self.shape.rows(self._layers[layer], slot)

    def keep(self, layer: int, slot: int, *, clean: bool) -> None:
        """Nothing to do: the same numbers are kept of a noisy and of a clean block."""

    def get(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        rows = filled * self.shape.block_tokens
        kept = self._layers[layer]
        return KeyValue(kept.k[:, :rows].to(dtype), kept.v[:, :rows].to(dtype))

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        rows = filled * self.shape.block_tokens
        return tuple(tensor[:, :rows] for kept in self._layers for tensor in kept)


def restore_pool(pool: Pool, tensors: Iterable[Tensor], filled: int) -> None:
    """Copies what another pool's `tensors(filled)` gave. Raises ValueError where a shape or a dtype differs."""
    for i, (target, source) in enumerate(zip(pool.tensors(filled), tensors, strict=True)):
        if target.shape != source.shape or target.dtype != source.dtype:
            raise ValueError(
                f"saved memory tensor {i} is {tuple(source.shape)} {source.dtype}, "
                f"this run keeps {tuple(target.shape)} {target.dtype}"
            )
        target.copy_(source)
