"""Pools that keep blocks in 8 or 4 bits. What attention reads is one shared scratch in the model's own dtype:

layer 7   storage   [ global ][ shot   ][ block 4 ][ old     ]      4.5 or 8 bits a number, one of these per layer
                        │         │          │                      decoded once per layer and pass
          scratch   [ global ][ shot   ][ block 4 ][ new     ]      one for all layers; the new block is written here
                                                       │            as it is, and to storage in its clean pass alone
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from ...kernels import append_nvfp4, quantize_fp8_rows, read_nvfp4
from ..model import KeyValue
from .pool import PoolShape

Smoothing = Literal["none", "token", "reference"]
RULE = "mse"


class Store(Protocol):
    """All slots of one layer's keys, or values, in few bits."""

    def append(self, slot: int, x: Tensor) -> None:
        """Writes a block, `[B, block_tokens, H, D]`, over its slot."""
        ...

    def read(self, slots: list[int], out: Tensor) -> None:
        """The slots, decoded to their rows of `out` `[B, slots · block_tokens, H, D]`; other rows stay."""
        ...

    def tensors(self, filled: int) -> tuple[Tensor, ...]: ...


class FP8Store:
    """E4M3 with a scale for every head of every token."""

    def __init__(self, shape: PoolShape, device: torch.device) -> None:
        self._shape = shape
        size = (shape.batch, shape.slots, shape.block_tokens, shape.heads)
        self._values = torch.empty((*size, shape.head_dim), dtype=torch.float8_e4m3fn, device=device)
        self._scales = torch.empty((*size, 1), dtype=torch.float32, device=device)

    def append(self, slot: int, x: Tensor) -> None:
        values, scales = quantize_fp8_rows(x.reshape(-1, self._shape.head_dim))
        self._values[:, slot].copy_(values.view(x.shape))
        self._scales[:, slot].copy_(scales.view(*x.shape[:-1], 1))

    def read(self, slots: list[int], out: Tensor) -> None:
        rows = out.unflatten(1, (self._shape.slots, self._shape.block_tokens))
        for slot in slots:
            rows[:, slot].copy_(self._values[:, slot]).mul_(self._scales[:, slot])

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        return self._values[:, :filled], self._scales[:, :filled]


class NVFP4Store:
    """NVFP4 by the 4-over-6 rule, with an amax for every block; `centred`: less the mean over the block's tokens.

    Keys share a large part of every channel with all tokens of a block. Taking it out before rounding and adding it
    when read leaves the numbers alone and their error smaller (the smoothing of SageAttention, arXiv 2411.10958).
    """

    def __init__(self, shape: PoolShape, device: torch.device, *, centred: bool) -> None:
        self._shape = shape
        numbers = shape.block_tokens * shape.heads * shape.head_dim
        slots = (shape.batch, shape.slots)
        self._values = torch.empty((*slots, numbers // 2), dtype=torch.uint8, device=device)
        self._scales = torch.empty((*slots, numbers // 16), dtype=torch.float8_e4m3fn, device=device)
        self._amax = torch.empty(slots, dtype=torch.float32, device=device)
        mean = (*slots, 1, shape.heads, shape.head_dim) if centred else (*slots, 0, 0, 0)
        self._mean = torch.empty(mean, dtype=torch.float32, device=device)

    def append(self, slot: int, x: Tensor) -> None:
        if self._mean.numel():
            self._mean[:, slot] = x.float().mean(1, keepdim=True)
            x = (x - self._mean[:, slot]).to(x.dtype)
        append_nvfp4(x, self._values, self._scales, self._amax, slot, RULE)

    def read(self, slots: list[int], out: Tensor) -> None:
        read_nvfp4(self._values, self._scales, self._amax, RULE, slots, out)
        if self._mean.numel():
            rows = out.unflatten(1, (self._shape.slots, self._shape.block_tokens))
            for slot in slots:
                rows[:, slot].add_(self._mean[:, slot])

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        return tuple(t[:, :filled] for t in (self._values, self._scales, self._amax, self._mean))


class QuantizedPool:
    """Slots in few bits behind a scratch in the dtype that attention computes in.

    scratch: `shape.empty(…)`, which any number of pools that are used in turn may share.
    smoothing: `token` centres NVFP4 keys, which changes no result but by its rounding. `reference` takes from the new
    block's own keys their mean over channels, as LongLive 2.0 does in every call; what is kept stays as it was.
    """

    def __init__(
        self, shape: PoolShape, kv_format: Literal["fp8", "nvfp4"], smoothing: Smoothing, scratch: KeyValue
    ) -> None:
        self.shape = shape
        self._smoothing = smoothing
        self._scratch = scratch
        self._new: tuple[int, int] | None = None

        def store(*, keys: bool) -> Store:
            if kv_format == "fp8":
                return FP8Store(shape, scratch.k.device)
            return NVFP4Store(shape, scratch.k.device, centred=keys and smoothing == "token")

        self._layers = [(store(keys=True), store(keys=False)) for _ in range(shape.layers)]

    def place(self, layer: int, slot: int) -> KeyValue:
        self._new = (layer, slot)
        return self.shape.rows(self._scratch, slot)

    def keep(self, layer: int, slot: int, *, clean: bool) -> None:
        k, v = self.shape.rows(self._scratch, slot)
        if clean:
            keys, values = self._layers[layer]
            keys.append(slot, k)
            values.append(slot, v)
        if self._smoothing == "reference":
            k.sub_(k.mean(-1, keepdim=True))

    def get(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        history = [slot for slot in range(filled) if (layer, slot) != self._new]
        for store, out in zip(self._layers[layer], self._scratch, strict=True):
            store.read(history, out)
        rows = filled * self.shape.block_tokens
        return KeyValue(self._scratch.k[:, :rows].to(dtype), self._scratch.v[:, :rows].to(dtype))

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        return tuple(t for layer in self._layers for store in layer for t in store.tensors(filled))
