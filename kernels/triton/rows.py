"""What the row kernels share: how they are launched, and values rounded to the dtype behind a pointer.

The interpreter's arithmetic on bfloat16 is wrong and its conversion truncates, so every kernel computes in float32 and
rounds with `round_as` where its eager twin rounds.
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
    """Runs `kernel(x, *rest, **block)` on x's device, `programs` times; `block` holds its sizes, powers of two.

    Contraction of a · b + c is off: it would skip the rounding between the two that eager torch does. These kernels
    wait for memory, so it costs nothing.
    """
    warps = min(16, max(1, prod(block.values()) // 512))
    with torch.cuda.device_of(x):
        kernel[(programs,)](x, *rest, **block, num_warps=warps, enable_fp_fusion=False)


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ValueError where a shape is another one: a kernel would read or write beside the tensor."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")


def per_run(name: str, value: Tensor, x: Tensor) -> Tensor:
    """A value `[B or 1, F, C]` for each of F runs of x's tokens, as `[B, F, C]` with channels adjacent in memory.

    x `[B, L, C]`. Raises ValueError where F does not divide L or a shape is another one.
    """
    batch, length, channels = x.shape
    runs = value.shape[1]
    if length % runs:
        raise ValueError(f"{name} has {runs} runs, which do not divide {length} tokens")
    check_shape(name, value, (batch if value.shape[0] == batch else 1, runs, channels))
    value = value if value.stride(-1) == 1 else value.contiguous()
    return value.expand(batch, -1, -1)


@triton.jit
def run_offset(
    row: tl.tensor, length: tl.tensor, runs: tl.tensor, batch_stride: tl.tensor, run_stride: tl.tensor
) -> tl.tensor:
    """Where the value `[B, F, C]` that row `row` of `[B, L, C]` uses begins, F = `runs`."""
    return (row // length) * batch_stride + (row % length) // (length // runs) * run_stride


@triton.jit
def load_row(start: tl.tensor, offsets: tl.tensor, mask: tl.tensor) -> tl.tensor:
    """The row that begins at a pointer, in float32, zeros where not `mask`."""
    return tl.load(start + offsets, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def round_as(x: tl.tensor, pointer: tl.tensor) -> tl.tensor:
    """float32 → float32 that the dtype behind `pointer` holds exactly."""
    dtype: tl.constexpr = pointer.dtype.element_ty  # pyright: ignore[reportAttributeAccessIssue]
    if dtype == tl.bfloat16:
        x = round_bf16(x)
    elif dtype == tl.float16:
        x = x.to(tl.float16).to(tl.float32)
    return x


@triton.jit
def store_as(pointer: tl.tensor, x: tl.tensor, mask: tl.tensor) -> None:
    """Stores float32 rounded to the dtype behind `pointer`; uint8 holds the bits of float8_e4m3fn."""
    dtype: tl.constexpr = pointer.dtype.element_ty  # pyright: ignore[reportAttributeAccessIssue]
    if dtype == tl.uint8:
        tl.store(pointer, encode_e4m3(x), mask=mask)
    else:
        tl.store(pointer, round_as(x, pointer), mask=mask)
