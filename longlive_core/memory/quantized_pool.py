"""A pool in 8, 4 or 2 bits. Attention reads a scratch buffer in its own dtype, which all layers share.

layer 7   store     [ global ][ shot   ][ block 4 ][ old     ]      2.5, 4.5 or 8 bits per number, a store per layer
                        │         │          │                      dequantised once per layer and pass
          scratch   [ global ][ shot   ][ block 4 ][ new     ]      one for all layers; the new block is written here
                                                       │            unquantised, and to the store in its clean pass
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...kernels import append_nvfp4, quantize_fp8_rows, read_fp8, read_nvfp4
from ..model import KeyValue
from ..parallel import all_max
from .pool import PoolShape, Slot
from .q2_store import Q2Store

Smoothing = Literal["none", "token", "reference"]
"""Centring of keys before NVFP4 quantisation; see `QuantizedPool`."""

RULE = "mse"
"""The NVFP4 scale rule; see `kernels.RULES`."""


class FP8Store:
    """The quantised keys, or values, of one layer: E4M3 with one float32 scale for each head of each token.

    These scales make centring pointless.
    """

    def __init__(self, shape: PoolShape, device: torch.device, centred: bool) -> None:  # noqa: ARG002
        self._shape, self.slots = shape, shape.slots
        size = (shape.batch, shape.slots, shape.block_tokens, shape.own_heads)
        self._values = torch.empty((*size, shape.head_dim), dtype=torch.float8_e4m3fn, device=device)
        self._scales = torch.empty((*size, 1), dtype=torch.float32, device=device)

    def append(self, slot: int, x: Tensor) -> None:
        """Quantises a block, `[B, block_tokens, H, D]`, into a slot."""
        values, scales = quantize_fp8_rows(x.reshape(-1, self._shape.head_dim))
        self._values[:, slot].copy_(values.view(x.shape))
        self._scales[:, slot].copy_(scales.view(*x.shape[:-1], 1))

    def read(self, slots: list[int], out: Tensor) -> None:
        """Dequantises `slots` into their rows of `out`, `[B, slots · block_tokens, H, D]`; other rows are unchanged."""
        read_fp8(self._values, self._scales, slots, out)

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """See `DensePool.tensors`."""
        return self._values[:, :filled], self._scales[:, :filled]


class NVFP4Store:
    """The quantised keys, or values, of one layer: NVFP4 with the 4-over-6 rule and one amax per block.

    centred: subtract the mean over the block's tokens before rounding.

    Keys have a large part in common over the tokens of a block. Subtracting it before rounding and adding it after
    dequantisation makes the rounding error smaller (the smoothing of SageAttention2, arXiv 2411.10958).

    Ranks that share the heads use one amax, so that their codes are those of one rank.
    """

    def __init__(self, shape: PoolShape, device: torch.device, centred: bool) -> None:
        self._ranks, self.slots = shape.ranks, shape.slots
        numbers = shape.block_tokens * shape.own_heads * shape.head_dim
        slots = (shape.batch, shape.slots)
        self._values = torch.empty((*slots, numbers // 2), dtype=torch.uint8, device=device)
        self._scales = torch.empty((*slots, numbers // 16), dtype=torch.float8_e4m3fn, device=device)
        self._amax = torch.empty(slots, dtype=torch.float32, device=device)
        # Empty if not centred, so that a snapshot holds the same number of tensors either way.
        mean = (*slots, 1, shape.own_heads, shape.head_dim) if centred else (*slots, 0, 0, 0)
        self._mean = torch.empty(mean, dtype=torch.float32, device=device)

    def append(self, slot: int, x: Tensor) -> None:
        """See `FP8Store.append`."""
        if self._mean.numel():
            self._mean[:, slot] = x.float().mean(1, keepdim=True)
            x = (x - self._mean[:, slot]).to(x.dtype)
        least = None if self._ranks.size == 1 else all_max(x.abs().amax((1, 2, 3)).float(), self._ranks)
        append_nvfp4(x, self._values, self._scales, self._amax, slot, RULE, least)

    def read(self, slots: list[int], out: Tensor) -> None:
        """See `FP8Store.read`."""
        mean = self._mean if self._mean.numel() else None
        read_nvfp4(self._values, self._scales, self._amax, RULE, slots, out, mean)

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """See `DensePool.tensors`."""
        return tuple(t[:, :filled] for t in (self._values, self._scales, self._amax, self._mean))


Store = FP8Store | NVFP4Store | Q2Store


def copy_slot(source: Store, target: Store, slot: Tensor) -> None:
    """Copies the only slot of `source` to a slot of `target` that only the device knows."""
    for new, own in zip(source.tensors(1), target.tensors(target.slots), strict=True):
        if own.numel():
            # As bytes, because no device copies E4M3 by an index.
            own, new = (t.view(torch.uint8) if t.itemsize == 1 else t for t in (own, new))
            own.index_copy_(1, slot, new)


class QuantizedPool:
    """A pool of quantised blocks. The block that is being sampled stays unquantised until its clean pass.

    store: of one layer's keys or values. scratch: `shape.empty(…)`; pools that are never read at
    the same time may share it.
    smoothing: `token` centres the keys of NVFP4 over the tokens of a block, which changes rounding errors only.
    `reference` subtracts from the new block's keys, in the scratch buffer, their mean over channels, as LongLive 2.0
    does in every call; the stored keys are not changed. It exists to compare with recorded runs.
    """

    def __init__(self, shape: PoolShape, store: type[Store], smoothing: Smoothing, scratch: KeyValue) -> None:
        self.shape = shape
        self._smoothing = smoothing
        self._scratch = scratch
        # The layer and slot that `new_block` gave last, and the block itself, unquantised: rows of the scratch buffer,
        # or beside it if the host does not know the slot.
        self._new: tuple[int, Slot] | None = None
        self._block = shape.slot_view(scratch, 0)
        device, centred = scratch.k.device, smoothing == "token"
        self._layers = [(store(shape, device, centred), store(shape, device, False)) for _ in range(shape.layers)]
        self._beside = lambda: (store(shape.one_slot, device, centred), store(shape.one_slot, device, False))

    def new_block(self, layer: int, slot: Slot) -> KeyValue:
        """See `DensePool.new_block`."""
        scratch, self._new = self._scratch, (layer, slot)
        if isinstance(slot, int):
            self._block = self.shape.slot_view(scratch, slot)
        else:
            self._block = self.shape.empty_block(scratch.k.dtype, scratch.k.device)
        return self._block

    def commit(self, layer: int, slot: Slot, *, clean: bool) -> None:
        """Stores what was written to `new_block` if it is clean, which is the case in a clean pass (t = 0)."""
        k, v = self._block
        if clean:
            stores = self._layers[layer]
            at, targets = (slot, stores) if isinstance(slot, int) else (0, self._beside())
            for x, target, store in zip((k, v), targets, stores, strict=True):
                target.append(at, x)
                if isinstance(slot, Tensor):
                    copy_slot(target, store, slot)
        if self._smoothing == "reference":
            k.sub_(k.mean(-1, keepdim=True))

    def read(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        """See `DensePool.read`. The new block is read from the scratch buffer, unquantised."""
        slot = self._new[1] if self._new is not None and self._new[0] == layer else None
        history = [other for other in range(filled) if isinstance(slot, Tensor) or other != slot]
        for store, out in zip(self._layers[layer], self._scratch, strict=True):
            store.read(history, out)
        if isinstance(slot, Tensor):
            self.shape.write(self._scratch, slot, self._block)
        rows = filled * self.shape.block_tokens
        return KeyValue(self._scratch.k[:, :rows].to(dtype), self._scratch.v[:, :rows].to(dtype))

    def move(self, source: int, target: int) -> None:
        """See `DensePool.move`."""
        for tensor in self.tensors(self.shape.slots):
            tensor[:, target].copy_(tensor[:, source])

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        """See `DensePool.tensors`."""
        return tuple(t for layer in self._layers for store in layer for t in store.tensors(filled))
