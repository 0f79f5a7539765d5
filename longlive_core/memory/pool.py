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


class Pool(Protocol):
    """Storage of one memory. Formats differ in what they keep; all of them are read as the model's own dtype."""

    @property
    def shape(self) -> PoolShape: ...

    def put(self, layer: int, slot: int, k: Tensor, v: Tensor, *, clean: bool) -> None:
        """Writes a block, `[B, block_tokens, H, D]`, over its slot.

        clean is false while the block is still noisy: a format that compresses may wait for the clean pass.
        """
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
        size = (shape.batch, shape.slots * shape.block_tokens, shape.heads, shape.head_dim)
        self._layers = [
            KeyValue(torch.empty(size, dtype=dtype, device=device), torch.empty(size, dtype=dtype, device=device))
            for _ in range(shape.layers)
        ]

    def put(self, layer: int, slot: int, k: Tensor, v: Tensor, *, clean: bool) -> None:
        del clean  # the same numbers are kept of a noisy and of a clean block
        rows = slice(slot * self.shape.block_tokens, (slot + 1) * self.shape.block_tokens)
        kept = self._layers[layer]
        kept.k[:, rows].copy_(k)
        kept.v[:, rows].copy_(v)

    def get(self, layer: int, filled: int, dtype: torch.dtype) -> KeyValue:
        rows = filled * self.shape.block_tokens
        kept = self._layers[layer]
        return KeyValue(kept.k[:, :rows].to(dtype), kept.v[:, :rows].to(dtype))

    def tensors(self, filled: int) -> tuple[Tensor, ...]:
        rows = filled * self.shape.block_tokens
        return tuple(tensor[:, :rows] for kept in self._layers for tensor in kept)


KV_FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}


def make_pool(kv_format: str, shape: PoolShape, device: torch.device) -> Pool:
    """An empty pool of the format. Raises ValueError for a format that is not there."""
    if kv_format not in KV_FORMATS:
        raise ValueError(f"kv_format '{kv_format}' is not available; choose one of {', '.join(KV_FORMATS)}")
    return DensePool(shape, KV_FORMATS[kv_format], device)


def pool_bytes(kv_format: str, shape: PoolShape) -> int:
    """Bytes that `make_pool` takes. Raises ValueError as it does."""
    with torch.device("meta"):
        pool = make_pool(kv_format, shape, torch.device("meta"))
    return sum(tensor.numel() * tensor.element_size() for tensor in pool.tensors(shape.slots))


def restore_pool(pool: Pool, tensors: Iterable[Tensor], filled: int) -> None:
    """Copies what another pool's `tensors(filled)` gave. Raises ValueError where a shape or a dtype differs."""
    for i, (target, source) in enumerate(zip(pool.tensors(filled), tensors, strict=True)):
        if target.shape != source.shape or target.dtype != source.dtype:
            raise ValueError(
                f"saved memory tensor {i} is {tuple(source.shape)} {source.dtype}, "
                f"this run keeps {tuple(target.shape)} {target.dtype}"
            )
        target.copy_(source)
