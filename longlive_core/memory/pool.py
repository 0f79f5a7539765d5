"""Storage of keys and values: slots of one block each, in every layer, written in place and read without a copy."""

from __future__ import annotations

from dataclasses import dataclass

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


class DensePool:
    """K/V of one branch of guidance, stored in one floating-point dtype.

    A new block is written to `new_block`, then committed, then read with the rest.
    """

    def __init__(self, shape: PoolShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self._layers = [shape.empty(dtype, device) for _ in range(shape.layers)]

    def new_block(self, layer: int, slot: int) -> KeyValue:
        """Views `[B, block_tokens, H, D]` that the caller writes the new block's K/V to."""
        return self.shape.slot_view(self._layers[layer], slot)

    def commit(self, layer: int, slot: int, *, clean: bool) -> None:
        """Does nothing: `new_block` is the storage itself."""

    def read(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        """K/V of the first `filled` slots in `dtype`, which attention computes in, `[B, filled · block_tokens, H, D]`.

        The next `new_block` or `read` may overwrite the result.
        """
        rows = filled * self.shape.block_tokens
        kv = self._layers[layer]
        return KeyValue(kv.k[:, :rows].to(dtype), kv.v[:, :rows].to(dtype))

    def move(self, source: int, target: int) -> None:
        """Copies what is stored in slot `source` to slot `target`."""
        for kv in self._layers:
            for own, other in zip(self.shape.slot_view(kv, target), self.shape.slot_view(kv, source), strict=True):
                own.copy_(other)

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """Views of everything that is stored for the first `filled` slots, in a fixed order, for snapshots."""
        rows = filled * self.shape.block_tokens
        return tuple(tensor[:, :rows] for kv in self._layers for tensor in kv)
