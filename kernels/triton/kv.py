"""Quantised slots of the KV cache of one layer: two kernels write NVFP4, one kernel reads any number of blocks.

NVFP4 scales are not swizzled and even columns are in the low nibble. All writes are in place, without synchronisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from ..nvfp4_format import NVFP4, denominator_of
from .bits import decode_e4m3
from .nvfp4 import dequantize_batch, mask_of, quantize_batch
from .rows import part_indices, round_as

_ROWS = 32
"""Rows of a head's width that one program reads."""


def append_nvfp4(
    x: Tensor,
    values: Tensor,
    scales: Tensor,
    amax: Tensor,
    slot: int,
    rule: str = "mse",
    least: Tensor | None = None,
) -> None:
    """Quantises a block of tokens into a slot. Each batch element is one matrix `[T · H, D]` with its own amax.

    x `[B, T, H, D]` with D a multiple of 16; values `[B, S, T · H · D / 2]` uint8, scales `[B, S, T · H · D / 16]`
    float8_e4m3fn, amax `[B, S]` float32. Other slots do not change. least: float32 `[B]`, the amax of the whole
    matrices of which x is a part. Raises ValueError for an unknown rule.
    """
    matrices = x.flatten(2)
    rows = matrices.shape[1]
    packed = NVFP4(
        values[:, slot].unflatten(1, (rows, -1)),
        scales[:, slot].unflatten(1, (rows, -1)),
        amax[:, slot],
        denominator_of(rule),
    )
    quantize_batch(matrices, packed, rule, least=least)


def read_nvfp4(
    values: Tensor,
    scales: Tensor,
    amax: Tensor,
    rule: str,
    slots: Sequence[int],
    out: Tensor,
    mean: Tensor | None = None,
) -> None:
    """Dequantises slots into their tokens of `out`, rounded to its dtype. Tokens of other slots do not change.

    values, scales, amax, rule: as in `append_nvfp4`. out: `[B, S · T, H, D]`, with slot s at tokens s · T to
    (s + 1) · T − 1. mean: float32 `[B, S, 1, H, D]`, added to every token of a slot after the first rounding, and the
    sum is rounded again. Raises ValueError for an unknown rule.
    """
    _, tokens, heads, channels = out.shape
    slot_count = values.shape[1]
    rows = tokens // slot_count
    matrices = out.view(-1, slot_count, rows, heads * channels)
    packed = NVFP4(values.unflatten(2, (rows, -1)), scales.unflatten(2, (rows, -1)), amax, denominator_of(rule))
    dequantize_batch(packed, matrices, slots, mean=None if mean is None else mean.flatten(2))


def read_fp8(values: Tensor, scales: Tensor, slots: Sequence[int], out: Tensor) -> None:
    """Multiplies the E4M3 numbers of `slots` with their scales, into their places in `out`, rounding once.

    values `[B, S, T, H, D]` float8_e4m3fn, scales `[B, S, T, H, 1]` float32. out: as in `read_nvfp4`.
    """
    batch, count, tokens, heads, width = values.shape
    rows = tokens * heads
    # Each batch element of `out` may be part of a longer buffer.
    matrices = out.view(batch, count * rows, width)
    kernel: JITFunction[Any] = _read_fp8
    with torch.cuda.device_of(out):
        kernel[(triton.cdiv(rows, _ROWS), 1, batch * count)](
            *(values.view(torch.uint8), scales, matrices, mask_of(slots, count), rows, width, count),
            *(matrices.stride(0), matrices.stride(1)),
            ROWS=_ROWS,
            COLUMNS=triton.next_power_of_2(width),
            enable_fp_fusion=False,
        )


@triton.jit(do_not_specialize=["slot_mask"])
def _read_fp8(
    values: tl.tensor,
    scales: tl.tensor,
    out: tl.tensor,
    slot_mask: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    slots: tl.tensor,
    out_batch: tl.tensor,
    out_row: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    part = tl.program_id(2).to(tl.int64)
    batch, slot = part // slots, part % slots
    if (slot_mask.to(tl.int64) >> slot) & 1 == 0:
        return
    row, column, mask = part_indices(rows, width, ROWS, COLUMNS)
    code = tl.load(values + (part * rows + row) * width + column, mask=mask, other=0)
    scale = tl.load(scales + part * rows + row, mask=row < rows, other=0.0)
    target = out + batch * out_batch + (slot * rows + row) * out_row + column
    tl.store(target, round_as(decode_e4m3(code) * scale, out), mask=mask)
