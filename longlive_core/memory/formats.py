"""The formats of the KV cache, by the name that a user gives, and the bytes that they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..model import KeyValue
from ..parallel import Ranks
from .centroids import WIDEST
from .pool import DensePool, PoolShape
from .q2_store import Q2Store
from .quantized_pool import FP8Store, NVFP4Store, QuantizedPool, Smoothing, Store

Pool = DensePool | QuantizedPool
"""K/V of one branch of guidance. Formats differ in what they store; all are read in the dtype of attention."""

KV_FORMATS: dict[str, torch.dtype | type[Store]] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "float32": torch.float32,
    "fp8": FP8Store,
    "nvfp4": NVFP4Store,
    "q2": Q2Store,
}
"""Name → the dtype of a `DensePool`, or the store of a `QuantizedPool`."""

META = torch.device("meta")
ALL = slice(None)
"""Every film of a batch."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """The pools of a film.

    dtype: in which attention computes. count: of pools, one for each branch of guidance.
    """

    kv_format: str
    shape: PoolShape
    dtype: torch.dtype
    smoothing: Smoothing = "none"
    count: int = 1

    def make(self, device: torch.device) -> tuple[Pool, ...]:
        """Allocates empty pools; quantised ones share one scratch buffer.

        Raises ValueError for an unknown format or a head width that the format cannot hold.
        """
        name, width, storage = self.kv_format, self.shape.head_dim, KV_FORMATS.get(self.kv_format)
        if storage is None:
            raise ValueError(f"kv_format '{name}' is not available; choose one of {', '.join(KV_FORMATS)}")
        if isinstance(storage, torch.dtype):
            return tuple(DensePool(self.shape, storage, device) for _ in range(self.count))
        if width % 16:
            raise ValueError(f"kv_format '{name}' needs a head width that is a multiple of 16, not {width}; use bf16")
        if storage is Q2Store and width > WIDEST:
            raise ValueError(f"kv_format 'q2' holds heads of at most {WIDEST} channels, not {width}; use nvfp4")
        scratch = self.shape.empty(self.dtype, device)
        return tuple(QuantizedPool(self.shape, storage, self.smoothing, scratch) for _ in range(self.count))

    def for_rank(self, ranks: Ranks) -> PoolSpec:
        """The pools of one of several ranks, for its share of the heads."""
        return replace(self, shape=replace(self.shape, ranks=ranks))


def as_stored(kv_format: str, kv: KeyValue, smoothing: Smoothing) -> KeyValue:
    """K/V of a block, `[B, L, H, D]`, as a cache of a format returns them, in their dtype and without a gradient.

    Raises ValueError as `PoolSpec.make` does.
    """
    batch, tokens, heads, width = kv.k.shape
    # A quantised pool returns its newest block as it is, so that the block is stored beside another one.
    shape = PoolShape(layers=1, batch=batch, slots=2, block_tokens=tokens, heads=heads, head_dim=width)
    (pool,) = PoolSpec(kv_format, shape, kv.k.dtype, smoothing).make(kv.k.device)
    with torch.no_grad():
        for own, given in zip(pool.new_block(0, 0), kv, strict=True):
            own.copy_(given)
        pool.commit(0, 0, clean=True)
        pool.new_block(0, 1)
        stored = pool.read(0, 1, kv.k.dtype)
    return KeyValue(stored.k, stored.v)


def pool_bytes(kv_format: str, shape: PoolShape) -> int:
    """Bytes of one pool without its scratch buffer. Raises ValueError as `PoolSpec.make` does."""
    (pool,) = PoolSpec(kv_format, shape, torch.bfloat16).make(META)
    return _bytes(pool.tensors(shape.slots))


def scratch_bytes(kv_format: str, shape: PoolShape, dtype: torch.dtype) -> int:
    """Bytes of the scratch buffer that the pools of a format share: K/V of one layer in `dtype`, or 0."""
    return 0 if isinstance(KV_FORMATS.get(kv_format), torch.dtype) else _bytes(shape.empty(dtype, META))


def restore_pool(pool: Pool, tensors: Sequence[Tensor], filled: int, films: slice = ALL) -> None:
    """Copies `tensors`, which the `tensors(filled)` of another pool gave, into these films of a pool.

    Raises ValueError if their number, a shape or a dtype differs.
    """
    targets = [tensor[films] for tensor in pool.tensors(filled)]
    check_saved(targets, tensors)
    for target, source in zip(targets, tensors, strict=True):
        target.copy_(source)


def check_saved(targets: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Raises ValueError if the number, a shape or a dtype of saved tensors differs from those of `targets`."""
    for i, (target, source) in enumerate(zip(targets, tensors, strict=True)):
        if target.shape != source.shape or target.dtype != source.dtype:
            raise ValueError(
                f"tensor {i} of the saved KV cache is {tuple(source.shape)} {source.dtype}, but this run has "
                f"{tuple(target.shape)} {target.dtype}; use the size and kv_format of the saved run"
            )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
