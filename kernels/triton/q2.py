"""The 2-bit residuals of the q2 format and its slots of the KV cache: one kernel to quantise, one to read.

Errors of the candidates for a scale are summed in another order than in eager PyTorch, so a near tie between them may
be decided differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from ..q2_format import CANDIDATES, group_of, index_bits
from .bits import decode_e4m3, encode_e4m3
from .nvfp4 import mask_of
from .rows import check_shape, part_indices, round_as

_ROWS = 16
"""Rows of a head's width that one program handles."""


def quantize_q2(x: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises residuals in units of their channels' spread to 2 bits, with one scale for each group of channels.

    Arguments and results: as in the eager op.
    """
    batch, tokens, heads, width = x.shape
    check_shape("spread", spread, (batch, 1, heads, width))
    group = group_of(width)
    codes = x.new_empty(*x.shape[:3], width // 4, dtype=torch.uint8)
    scales = x.new_empty(*x.shape[:3], width // group, dtype=torch.float8_e4m3fn)
    rows = batch * tokens * heads
    kernel: JITFunction[Any] = _quantize
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(rows, _ROWS),)](
            *(x.contiguous(), spread.contiguous(), codes, scales.view(torch.uint8)),
            *(rows, width, heads, tokens * heads, *CANDIDATES),
            GROUP=group,
            ROWS=_ROWS,
            COLUMNS=triton.next_power_of_2(width),
            enable_fp_fusion=False,
        )
    return codes, scales


def read_q2(
    codes: Tensor,
    scales: Tensor,
    indices: Tensor,
    centroids: Tensor,
    channels: Tensor,
    steps: Tensor,
    slots: Sequence[int],
    out: Tensor,
) -> None:
    """Dequantises `slots` into their places in `out`, `[B, S · T, H, D]`, in float32 and rounding once.

    Arguments: as in the eager op; out may be part of a longer buffer. Raises ValueError for more than 63 slots.
    """
    batch, count, tokens, heads, packed = codes.shape
    width, stages = 4 * packed, steps.shape[2]
    options = centroids.shape[2] // stages
    kernel: JITFunction[Any] = _read
    with torch.cuda.device_of(out):
        kernel[(triton.cdiv(tokens, _ROWS), heads, batch * count)](
            *(codes, scales.view(torch.uint8), indices, centroids, channels.view(torch.uint8), steps, out),
            *(mask_of(slots, count), tokens, width, count, out.stride(0)),
            GROUP=width // scales.shape[-1],
            STAGES=stages,
            OPTIONS=options,
            BITS=index_bits(options),
            ROWS=_ROWS,
            COLUMNS=triton.next_power_of_2(width),
            enable_fp_fusion=False,
        )


@triton.jit
def _quantize(
    x: tl.tensor,
    spread: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    heads: tl.tensor,
    rows_of_film: tl.tensor,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    THIRD: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row, column, mask = part_indices(rows, width, ROWS, COLUMNS)
    value = tl.load(x + row * width + column, mask=mask, other=0.0)
    head = row // rows_of_film * heads + row % heads
    value = tl.div_rn(value, tl.load(spread + head * width + column, mask=mask, other=1.0))
    groups = tl.reshape(tl.abs(value), (ROWS, COLUMNS // GROUP, GROUP))
    code, least = _candidate(groups, FIRST)
    other, error = _candidate(groups, SECOND)
    code, least = tl.where(error < least, other, code), tl.where(error < least, error, least)
    other, error = _candidate(groups, THIRD)
    code = tl.where(error < least, other, code)
    outer = tl.reshape((groups > decode_e4m3(code)[:, :, None]).to(tl.int32), (ROWS, COLUMNS))
    signed = outer + 2 * (value < 0).to(tl.int32)
    shifts = 2 * tl.arange(0, 4)[None, None, :]
    packed = tl.sum(tl.reshape(signed, (ROWS, COLUMNS // 4, 4)) << shifts, 2)
    row, column, mask = part_indices(rows, width // 4, ROWS, COLUMNS // 4)
    tl.store(codes + row * (width // 4) + column, packed.to(tl.uint8), mask=mask)
    row, column, mask = part_indices(rows, width // GROUP, ROWS, COLUMNS // GROUP)
    tl.store(scales + row * (width // GROUP) + column, code, mask=mask)


@triton.jit
def _candidate(groups: tl.tensor, FACTOR: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """The code of a scale of magnitudes `[R, C, GROUP]`, and the squared error with it, `[R, C]` each."""
    code = encode_e4m3(tl.max(groups, 2) * FACTOR)  # pyright: ignore[reportArgumentType]
    scale = decode_e4m3(code)[:, :, None]
    error = groups - ((groups > scale).to(tl.float32) + 0.5) * scale
    return code, tl.sum(error * error, 2)  # pyright: ignore[reportReturnType]


@triton.jit(do_not_specialize=["slot_mask"])
def _read(
    codes: tl.tensor,
    scales: tl.tensor,
    indices: tl.tensor,
    centroids: tl.tensor,
    channels: tl.tensor,
    steps: tl.tensor,
    out: tl.tensor,
    slot_mask: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    slots: tl.tensor,
    out_batch: tl.tensor,
    GROUP: tl.constexpr,
    STAGES: tl.constexpr,
    OPTIONS: tl.constexpr,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """Each program reads ROWS tokens of one head, which have the same centroids, channels and steps."""
    part, head, heads = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    batch, slot = part // slots, part % slots
    if (slot_mask.to(tl.int64) >> slot) & 1 == 0:
        return
    token = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = token < tokens
    row = token * heads + head
    rows = part * tokens * heads

    quarter = tl.arange(0, COLUMNS // 4)[None, :]
    packed = tl.load(codes + rows * (width // 4) + (row * (width // 4) + quarter), mask=inside & (quarter < width // 4))
    code = (packed.to(tl.uint32)[:, :, None] >> (2 * tl.arange(0, 4)[None, None, :])) & 3
    # The bits of ½, with those of 1½ and the sign.
    level = (0x3F000000 + (code & 1) * 0x00C00000 + ((code & 2) << 30)).to(tl.float32, bitcast=True)
    group = tl.arange(0, COLUMNS // GROUP)[None, :]
    count = width // GROUP
    scale = decode_e4m3(tl.load(scales + rows * count + (row * count + group), mask=inside & (group < count), other=0))
    value = tl.reshape(level, (ROWS, COLUMNS // GROUP, GROUP)) * scale[:, :, None]

    base = tl.zeros((ROWS, COLUMNS), tl.float32)
    step = 0.0
    for stage in tl.static_range(STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        chosen = tl.full((ROWS, 1), stage * OPTIONS, tl.int32)
        if BITS > 0:
            bit = (token * STAGES + stage) * BITS
            bytes_before = rows * STAGES * BITS // 8
            byte = tl.load(indices + bytes_before + (bit // 8 * heads + head), mask=inside, other=0).to(tl.int32)
            chosen += (byte >> (bit % 8)) & ((1 << BITS) - 1)  # pyright: ignore[reportOperatorIssue]
        step = tl.load(steps + (part * STAGES + stage) * heads + head)
        table = centroids + part * STAGES * OPTIONS * heads * width
        centroid = tl.load(table + ((chosen * heads + head) * width + column), mask=column < width, other=0)
        base += centroid.to(tl.float32) * step
    channel = tl.load(channels + (part * heads + head) * width + column, mask=column < width, other=0)
    value = tl.reshape(value, (ROWS, COLUMNS)) * (decode_e4m3(channel) * step) + base
    target = out + batch * out_batch + slot * tokens * heads * width + (row * width + column)
    tl.store(target, round_as(value, out), mask=inside & (column < width))
