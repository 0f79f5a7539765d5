"""The formats that keys and values can be kept in, by the name a user gives."""

from __future__ import annotations

import torch

from ..model import KeyValue
from .pool import DensePool, Pool, PoolShape
from .quantized_pool import QuantizedPool, Smoothing

DENSE = {"bf16": torch.bfloat16, "fp16": torch.float16, "float32": torch.float32}
KV_FORMATS = (*DENSE, "fp8", "nvfp4")


def make_pools(
    kv_format: str,
    shape: PoolShape,
    device: torch.device,
    dtype: torch.dtype,
    *,
    smoothing: Smoothing = "none",
    count: int = 1,
) -> tuple[Pool, ...]:
    """Empty pools of the format, one for each branch of guidance. dtype: the one that attention computes in.

    Raises ValueError for a format that is not there, or that cannot hold heads of this width.
    """
    if kv_format in DENSE:
        return tuple(DensePool(shape, DENSE[kv_format], device) for _ in range(count))
    if kv_format not in KV_FORMATS:
        raise ValueError(f"kv_format '{kv_format}' is not available; choose one of {', '.join(KV_FORMATS)}")
    if shape.head_dim % 16:
        raise ValueError(f"kv_format '{kv_format}' needs heads of 16 channels or a multiple, not {shape.head_dim}")
    scratch = scratch_of(shape, dtype, device)
    return tuple(
        QuantizedPool(shape, "fp8" if kv_format == "fp8" else "nvfp4", smoothing, scratch) for _ in range(count)
    )


def scratch_of(shape: PoolShape, dtype: torch.dtype, device: torch.device) -> KeyValue:
    """Room for one layer's decoded keys and values, which the pools of a compressed format share."""
    return shape.empty(dtype, device)


def pool_bytes(kv_format: str, shape: PoolShape) -> int:
    """Bytes that one pool keeps, counted from its tensors; the shared scratch is `scratch_bytes`."""
    (pool,) = make_pools(kv_format, shape, torch.device("meta"), torch.bfloat16)
    return sum(tensor.numel() * tensor.element_size() for tensor in pool.tensors(shape.slots))


def scratch_bytes(kv_format: str, shape: PoolShape, dtype: torch.dtype) -> int:
    """Bytes of the scratch beside the pools of this format."""
    if kv_format in DENSE:
        return 0
    return sum(tensor.numel() * tensor.element_size() for tensor in scratch_of(shape, dtype, torch.device("meta")))
