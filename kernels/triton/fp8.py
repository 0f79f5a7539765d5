"""FP8 quantisation of rows, alone and after an activation, one program per row, and of the heads of attention."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.jit import JITFunction

from ..fp8_format import head_scales
from .activation import gelu_tanh_of
from .bits import divide_by, encode_e4m3
from .rows import launch, load_row, round_as, this_row

_ROWS = 32
"""Tokens of a head that one program quantises."""


def quantize_fp8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises to float8_e4m3fn: x ≈ codes · scales, where the scale of a row is its largest magnitude / 448.

    x `[M, K]` → codes float8_e4m3fn `[M, K]` (x / scale, to nearest, ties to even) and scales float32 `[M, 1]`, 1 for a
    row of zeros. Divisions are exact float32 divisions. A NaN makes its whole row NaN.
    """
    rows, width = x.shape
    codes, scales = empty_fp8(x)
    launch(_quantize_rows, rows, x.contiguous(), codes, scales, width, BLOCK=triton.next_power_of_2(width))
    return codes.view(torch.float8_e4m3fn), scales


def quantize_fp8_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_fp8_rows` with one scale for all tokens of a head, as FP8 attention takes q, k and v.

    x `[B, L, H, D]` → codes float8_e4m3fn `[B, L, H, D]` and scales float32 `[B, 1, H, 1]`.
    """
    batch, length, heads, width = x.shape
    x, scales = x.contiguous(), head_scales(x)
    codes = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    kernel: JITFunction[Any] = _quantize_heads
    with torch.cuda.device_of(x):
        kernel[(triton.cdiv(length, _ROWS), heads, batch)](
            *(x, codes, scales, length, heads, width),
            ROWS=_ROWS,
            COLUMNS=triton.next_power_of_2(width),
            enable_fp_fusion=False,
        )
    return codes.view(torch.float8_e4m3fn), scales


def gelu_tanh_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_fp8_rows` of `gelu_tanh`: x `[..., K]` → codes float8_e4m3fn `[..., K]`, scales float32 `[..., 1]`."""
    width = x.shape[-1]
    codes, scales = empty_fp8(x)
    block = triton.next_power_of_2(width)
    launch(_gelu_tanh_fp8, x.numel() // width, x.contiguous(), codes, scales, width, BLOCK=block)
    return codes.view(torch.float8_e4m3fn), scales


def empty_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Uninitialised codes of x, uint8 of its shape, and scales, float32 `[..., 1]`."""
    codes = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    return codes, torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)


@triton.jit
def store_fp8_row(
    codes: tl.tensor,
    scales: tl.tensor,
    row: tl.tensor,
    width: tl.tensor,
    value: tl.tensor,
    offsets: tl.tensor,
    mask: tl.tensor,
) -> None:
    """Quantises a row in float32, with zeros outside `mask`, and stores its codes and its scale."""
    # Magnitudes have the order of their bits, with NaN above all, so the integer maximum keeps a NaN.
    largest = tl.max(value.to(tl.int32, bitcast=True) & 0x7FFFFFFF, 0)
    scale = tl.div_rn(tl.cast(largest, tl.float32, bitcast=True), 448.0)  # pyright: ignore[reportArgumentType]
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + row, scale)
    tl.store(codes + row * width + offsets, encode_e4m3(divide_by(value, scale)), mask=mask)


@triton.jit
def _quantize_rows(x: tl.tensor, codes: tl.tensor, scales: tl.tensor, width: tl.tensor, BLOCK: tl.constexpr) -> None:
    row, offsets, mask = this_row(width, BLOCK)
    value = load_row(x + row * width, offsets, mask)
    store_fp8_row(codes, scales, row, width, value, offsets, mask)


@triton.jit
def _quantize_heads(
    x: tl.tensor,
    codes: tl.tensor,
    scales: tl.tensor,
    length: tl.tensor,
    heads: tl.tensor,
    width: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """One program for some tokens of a head, so that it divides by one number."""
    token = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    mask = (token < length) & (column < width)
    head, element = tl.program_id(1), tl.program_id(2).to(tl.int64)
    offset = ((element * length + token) * heads + head) * width + column
    value = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(codes + offset, encode_e4m3(divide_by(value, tl.load(scales + element * heads + head))), mask=mask)


@triton.jit
def _gelu_tanh_fp8(x: tl.tensor, codes: tl.tensor, scales: tl.tensor, width: tl.tensor, BLOCK: tl.constexpr) -> None:
    row, offsets, mask = this_row(width, BLOCK)
    value = round_as(gelu_tanh_of(load_row(x + row * width, offsets, mask)), x)
    store_fp8_row(codes, scales, row, width, value, offsets, mask)
