"""Storage of keys and values: slots of one block each, in every layer, written in place and read without a copy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..model import KeyValue, WanConfig


@dataclass(frozen=True, slots=True)
class PoolShape:
    """Shape of a pool: `slots` blocks of `block_tokens` tokens in each of `layers` layers."""

    layers: int
    batch: int
    slots: int
    block_tokens: int
    heads: int
    head_dim: int

    @classmethod
    def of(cls, config: WanConfig, *, batch: int, slots: int, block_tokens: int) -> PoolShape:
        """The shape for a model, which gives layers, heads and head width."""
        return cls(config.num_layers, batch, slots, block_tokens, config.num_heads, config.head_dim)

    def empty(self, dtype: torch.dtype, device: torch.device) -> KeyValue:
        """Uninitialised K/V of one layer, `[B, slots · block_tokens, H, D]` each."""
        size = (self.batch, self.slots * self.block_tokens, self.heads, self.head_dim)
        return KeyValue(torch.empty(size, dtype=dtype, device=device), torch.empty(size, dtype=dtype, device=device))

    def slot_view(self, kv: KeyValue, slot: int) -> KeyValue:
        """Views of one slot, `[B, block_tokens, H, D]`, of K/V as `empty` shapes them."""
        rows = slice(slot * self.block_tokens, (slot + 1) * self.block_tokens)
        return KeyValue(kv.k[:, rows], kv.v[:, rows])


class Pool(Protocol):
    """K/V of one branch of guidance. A new block is written to `new_block`, then committed, then read with the rest.

    Formats differ in what they store. All of them are read in the dtype that attention computes in.
    """

    @property
    def shape(self) -> PoolShape:
        """The number and size of the slots."""
        ...

    def new_block(self, layer: int, slot: int) -> KeyValue:
        """Views `[B, block_tokens, H, D]` that the caller writes the new block's K/V to."""
        ...

    def commit(self, layer: int, slot: int, *, clean: bool) -> None:
        """Stores what was written to `new_block`. A quantised pool stores clean blocks only (clean: t = 0)."""
        ...

    def read(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        """K/V of the first `filled` slots in `dtype`, `[B, filled · block_tokens, H, D]`.

        The next `new_block` or `read` may overwrite the result.
        """
        ...

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """Views of everything that is stored for the first `filled` slots, in a fixed order, for snapshots."""
        ...


class DensePool:
    """A pool that stores K/V in one floating-point dtype."""

    def __init__(self, shape: PoolShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self._layers = [shape.empty(dtype, device) for _ in range(shape.layers)]

    def new_block(self, layer: int, slot: int) -> KeyValue:
        """See `Pool.new_block`."""
        return self.shape.slot_view(self._layers[layer], slot)

    def commit(self, layer: int, slot: int, *, clean: bool) -> None:
        """Does nothing: `new_block` is the storage itself."""

    def read(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        """See `Pool.read`."""
        rows = filled * self.shape.block_tokens
        kv = self._layers[layer]
        return KeyValue(kv.k[:, :rows].to(dtype), kv.v[:, :rows].to(dtype))

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """See `Pool.tensors`."""
        rows = filled * self.shape.block_tokens
        return tuple(tensor[:, :rows] for kv in self._layers for tensor in kv)


def restore_pool(pool: Pool, tensors: Iterable[Tensor], filled: int) -> None:
    """Copies `tensors`, which the `tensors(filled)` of another pool gave, into a pool.

    Raises ValueError if their number, a shape or a dtype differs.
    """
    for i, (target, source) in enumerate(zip(pool.tensors(filled), tensors, strict=True)):
        if target.shape != source.shape or target.dtype != source.dtype:
            raise ValueError(
                f"tensor {i} of the saved KV cache is {tuple(source.shape)} {source.dtype}, but this run has "
                f"{tuple(target.shape)} {target.dtype}; use the size and kv_format of the saved run"
            )
        target.copy_(source)
