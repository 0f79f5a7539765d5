"""Shared parts of the kernels that work on rows: launch, checks of shapes, loads and rounded stores.

Triton's interpreter computes bfloat16 wrongly and truncates in conversions. Every kernel therefore computes in float32
and rounds with `round_as` where the eager op rounds; `bits` has one rounding for it and one for hardware.
"""

from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from .bits import encode_e4m3, round_bf16


def launch(kernel: JITFunction[Any], programs: int, x: Tensor, *rest: Tensor | float | None, **block: int) -> None:
    """Launches `programs` programs of `kernel(x, *rest, **block)` on x's device; `block` holds powers of two.

    Contraction of a · b + c to a fused multiply-add is off, because eager PyTorch rounds the product. The kernels are
    bound by memory, so this costs no time.
    """
    warps = min(16, max(1, prod(block.values()) // 512))
    with torch.cuda.device_of(x):
        kernel[(programs,)](x, *rest, **block, num_warps=warps, enable_fp_fusion=False)


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a wrong shape; a kernel would read or write out of bounds."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")


def per_run(name: str, value: Tensor, x: Tensor) -> Tensor:
    """Expands `[B or 1, F, C]`, a value for each of F equal runs of tokens, to `[B, F, C]` with contiguous channels.

    x `[B, L, C]`. Raises ValueError if F does not divide L or the shape is wrong.
    """
    batch, length, channels = x.shape
    runs = value.shape[1]
    if length % runs:
        raise ValueError(f"{name} has {runs} runs, which do not divide {length} tokens")
    check_shape(name, value, (batch if value.shape[0] == batch else 1, runs, channels))
    value = value if value.stride(-1) == 1 else value.contiguous()
    return value.expand(batch, -1, -1)


def spaced_rows(x: Tensor) -> tuple[Tensor, int]:
    """x `[..., C]` and the stride of its rows, as a part of the columns of a larger matrix has it; otherwise a copy."""
    steps = [x.stride(-2) * prod(x.shape[dim + 1 : -1]) for dim in range(x.ndim - 1)] if x.ndim > 1 else []
    even = all(x.shape[dim] == 1 or x.stride(dim) == step for dim, step in enumerate(steps))
    if x.stride(-1) != 1 or not even:
        x = x.contiguous()
    return x, x.stride(-2) if x.ndim > 1 else x.shape[-1]


@triton.jit
def this_row(width: tl.tensor, BLOCK: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The row of this program, the offsets of its values and the mask of those inside the row."""
    offsets = tl.arange(0, BLOCK)
    return tl.program_id(0).to(tl.int64), offsets, offsets < width


@triton.jit
def part_indices(
    rows: tl.tensor, columns: tl.tensor, ROWS: tl.constexpr, COLUMNS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Rows `[ROWS, 1]` and columns `[1, COLUMNS]` of this program's part, and the mask of those inside the matrix."""
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    return row, column, (row < rows) & (column < columns)


@triton.jit
def run_offset(
    row: tl.tensor, length: tl.tensor, runs: tl.tensor, batch_stride: tl.tensor, run_stride: tl.tensor
) -> tl.tensor:
    """Offset in values `[B, F, C]` of the one for row `row` of `[B, L, C]`; F = `runs`."""
    return (row // length) * batch_stride + (row % length) // (length // runs) * run_stride


@triton.jit
def load_row(start: tl.tensor, offsets: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """The row at a pointer in float32, with zeros outside `mask`."""
    return tl.load(start + offsets, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def round_as(x: tl.tensor, pointer: tl.tensor) -> tl.tensor:
    """Rounds float32 to the nearest value of the dtype behind `pointer`, as float32."""
    dtype: tl.constexpr = pointer.dtype.element_ty  # pyright: ignore[reportAttributeAccessIssue]
    if dtype == tl.bfloat16:
        x = round_bf16(x)
    elif dtype == tl.float16:
        x = x.to(tl.float16).to(tl.float32)
    return x


@triton.jit
def store_as(pointer: tl.tensor, x: tl.tensor, mask: tl.tensor) -> None:
    """Stores float32 rounded to the dtype behind `pointer`. For uint8 it stores the bits of float8_e4m3fn."""
    dtype: tl.constexpr = pointer.dtype.element_ty  # pyright: ignore[reportAttributeAccessIssue]
    if dtype == tl.uint8:
        tl.store(pointer, encode_e4m3(x), mask=mask)
    else:
        tl.store(pointer, round_as(x, pointer), mask=mask)
