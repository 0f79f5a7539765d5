"""Storage of keys and values: slots of one block each, in every layer, written in place and read without a copy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..model import KeyValue, WanConfig
from ..parallel import ALONE, Ranks

Slot = int | Tensor
"""A slot by its number; or by an int64 tensor `[1]` on the device, which a CUDA graph reads anew in every replay."""


@dataclass(frozen=True, slots=True)
class PoolShape:
    """Shape of a pool: `slots` blocks of `block_tokens` tokens in each of `layers` layers.

    heads: of the model. ranks: each has a pool with its share of the heads.
    """

    layers: int
    batch: int
    slots: int
    block_tokens: int
    heads: int
    head_dim: int
    ranks: Ranks = ALONE

    @property
    def own_heads(self) -> int:
        """The number of heads in the pool of this rank."""
        return self.ranks.shares(self.heads)[self.ranks.rank]

    @classmethod
    def of(cls, config: WanConfig, *, batch: int, slots: int, block_tokens: int) -> PoolShape:
        """The shape for a model, which gives layers, heads and head width."""
        return cls(config.num_layers, batch, slots, block_tokens, config.num_heads, config.head_dim)

    def empty(self, dtype: torch.dtype, device: torch.device) -> KeyValue:
        """Uninitialised K/V of one layer, `[B, slots · block_tokens, H, D]` each."""
        size = (self.batch, self.slots * self.block_tokens, self.own_heads, self.head_dim)
        return KeyValue(torch.empty(size, dtype=dtype, device=device), torch.empty(size, dtype=dtype, device=device))

    def empty_block(self, dtype: torch.dtype, device: torch.device) -> KeyValue:
        """Uninitialised K/V of one block, `[B, block_tokens, H, D]` each."""
        return self.one_slot.empty(dtype, device)

    @property
    def one_slot(self) -> PoolShape:
        """The shape of a pool of one slot."""
        return replace(self, slots=1)

    def write(self, kv: KeyValue, slot: Tensor, block: KeyValue) -> None:
        """Copies a block, as `empty_block` shapes it, to a slot of K/V as `empty` shapes them."""
        for whole, part in zip(kv, block, strict=True):
            whole.unflatten(1, (self.slots, self.block_tokens)).index_copy_(1, slot, part.unsqueeze(1))

    def slot_view(self, kv: KeyValue, slot: int) -> KeyValue:
        """Views of one slot, `[B, block_tokens, H, D]`, of K/V as `empty` shapes them."""
        rows = slice(slot * self.block_tokens, (slot + 1) * self.block_tokens)
        return KeyValue(kv.k[:, rows], kv.v[:, rows])


class DensePool:
    """K/V of one branch of guidance, stored in one floating-point dtype.

    A new block is written to `new_block`, then committed, then read with the rest. A slot that only the device knows
    has no view: its block is written beside the slots, and copied when it is committed.
    """

    def __init__(self, shape: PoolShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self._layers = [shape.empty(dtype, device) for _ in range(shape.layers)]
        # A block that is not committed yet, if the host does not know its slot.
        self._beside: KeyValue | None = None

    def new_block(self, layer: int, slot: Slot) -> KeyValue:
        """Tensors `[B, block_tokens, H, D]` that the caller writes the new block's K/V to."""
        storage = self._layers[layer]
        if isinstance(slot, int):
            return self.shape.slot_view(storage, slot)
        self._beside = self.shape.empty_block(storage.k.dtype, storage.k.device)
        return self._beside

    def commit(self, layer: int, slot: Slot, *, clean: bool) -> None:  # noqa: ARG002
        """Puts what was written to `new_block` into the slot. A view of the slot is the storage itself."""
        if isinstance(slot, Tensor) and self._beside is not None:
            self.shape.write(self._layers[layer], slot, self._beside)
            self._beside = None

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
