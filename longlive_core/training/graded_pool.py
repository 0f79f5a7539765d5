"""K/V of one call of a rollout that gets a gradient: nothing that it reads is ever overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from ..memory import BlockKVCache, PoolShape
from ..model import KeyValue

LayerKV = tuple[KeyValue, ...]
"""K/V of one block in each layer, `[B, block_tokens, H, D]`."""


@dataclass(frozen=True, slots=True)
class GradedPool:
    """Pool of one graded call: K/V of earlier blocks that are never overwritten, and those of the new block.

    past: the K/V in each occupied slot, None for the new block's. dtype: of the new block's K/V. new: for each layer,
    what the call has written.
    """

    shape: PoolShape
    past: tuple[LayerKV | None, ...]
    dtype: torch.dtype
    device: torch.device
    new: dict[int, KeyValue] = field(default_factory=dict[int, KeyValue])

    @classmethod
    def of(cls, kv: BlockKVCache, past: Mapping[int, LayerKV], device: torch.device) -> GradedPool:
        """The pool for a call that `kv` was meant for. past: by block, `[B, block_tokens, H, D]`."""
        # Rounded as in the pool of inference, except in quantised ones, which hold new blocks in full precision.
        dtype = kv.pool.new_block(0, kv.slot).k.dtype
        blocks = (None if slot == kv.slot else past[block] for slot, block in enumerate(kv.blocks))
        return cls(kv.pool.shape, tuple(blocks), dtype, device)

    @property
    def written(self) -> LayerKV:
        """The new block's K/V in each layer."""
        return tuple(self.new[layer] for layer in range(self.shape.layers))

    def new_block(self, layer: int, slot: int) -> KeyValue:
        """See `Pool.new_block`. The tensors are new ones, so that a write is recorded and changes no earlier one."""
        del slot
        self.new[layer] = replace(self.shape, slots=1).empty(self.dtype, self.device)
        return self.new[layer]

    def commit(self, layer: int, slot: int, *, clean: bool) -> None:
        """Does nothing: see `new_block`."""

    def read(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        """See `Pool.read`."""
        slots = [self.new[layer] if block is None else block[layer] for block in self.past[:filled]]
        return KeyValue(*(torch.cat(part, dim=1).to(dtype) for part in zip(*slots, strict=True)))

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """See `Pool.tensors`."""
        layers = [self.read(layer, filled, self.dtype) for layer in range(self.shape.layers)]
        return tuple(tensor for kv in layers for tensor in kv)


def straight_through(value: Tensor, source: Tensor) -> Tensor:
    """`value`, whose gradient goes to `source`; both of the same shape."""
    return cast("Tensor", _StraightThrough.apply(value, source))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor) -> Tensor:  # noqa: ANN401
        del ctx, source
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, Tensor]:  # noqa: ANN401
        del ctx
        return None, gradients[0]
