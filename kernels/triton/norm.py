"""Normalisation, computed in float32 for any input dtype. One program holds a whole row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .fp8 import empty_fp8, store_fp8_row
from .rope import angles, rotated
from .rows import check_shape, launch, load_row, per_run, round_as, run_offset, spaced_rows, store_as, this_row


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension.

    x `[..., C]`, weight `[C]`; returns x's shape and dtype. Rounded to x's dtype before the product with the weight
    and after it.
    """
    width = x.shape[-1]
    check_shape("weight", weight, (width,))
    x, stride = spaced_rows(x)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch(
        *(_rms_norm, x.numel() // width, x, weight.contiguous(), out, width, stride, eps),
        BLOCK=triton.next_power_of_2(width),
    )
    return out


def rms_norm_rope(
    x: Tensor,
    weight: Tensor,
    cos: Tensor | None,
    sin: Tensor | None,
    heads: int,
    eps: float,
    out: Tensor | None = None,
) -> Tensor:
    """`rms_norm` over the full width, a split into heads and `rope_rotate`: q or k after its projection.

    x `[B, L, C]`, weight `[C]`, cos and sin `[B or 1, L, C/heads/2]` in float32, or None for no rotation. out:
    `[B, L, heads, C/heads]`, with any strides and float dtype (float8_e4m3fn saturates); by default a new tensor of x's
    dtype. Returns out. Rounded to x's dtype after the norm, the weight and the rotation.
    """
    batch, length, width = x.shape
    shape = (batch, length, heads, width // heads)
    check_shape("weight", weight, (width,))
    out = torch.empty(shape, dtype=x.dtype, device=x.device) if out is None else out
    check_shape("out", out, shape)
    rotation = None if cos is None or sin is None else angles(cos, sin, batch, length, shape[-1] // 2)
    target = out.view(torch.uint8) if out.dtype == torch.float8_e4m3fn else out
    x, stride = spaced_rows(x)
    launch(
        *(_rms_norm_rope, batch * length, x, weight.contiguous(), *(rotation or (None, None)), target),
        *(width, stride, length, rotation[0].shape[0] if rotation else 1, shape[-1], *out.stride(), eps),
        BLOCK=triton.next_power_of_2(width),
    )
    return out


def layer_norm_modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """layernorm(x) · (1 + scale) + shift, with one scale and shift for each of F equal runs of tokens (adaLN).

    x `[B, L, C]`, scale and shift `[B, F, C]` with L a multiple of F; returns `[B, L, C]` in x's dtype. Rounded to x's
    dtype after the norm and after each operation of the modulation.
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch_modulate(x, scale, shift, out, None, eps)
    return out


def layer_norm_modulate_fp8(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`quantize_fp8_rows` of `layer_norm_modulate`: codes float8_e4m3fn `[B, L, C]` and scales float32 `[B, L, 1]`."""
    codes, scales = empty_fp8(x)
    _launch_modulate(x, scale, shift, codes, scales, eps)
    return codes.view(torch.float8_e4m3fn), scales


def _launch_modulate(
    x: Tensor, scale: Tensor, shift: Tensor, out: Tensor, out_scales: Tensor | None, eps: float
) -> None:
    batch, length, width = x.shape
    scale, shift = per_run("scale", scale, x), per_run("shift", shift, x)
    launch(
        *(_layer_norm_modulate, batch * length, x.contiguous(), scale, shift, out, out_scales, width, length),
        *(scale.shape[1], shift.shape[1], *scale.stride()[:2], *shift.stride()[:2], eps),
        BLOCK=triton.next_power_of_2(width),
    )


@triton.jit
def rms_normed(
    start: tl.tensor, weight: tl.tensor, offsets: tl.tensor, mask: tl.tensor, width: tl.tensor, eps: tl.tensor
) -> tl.tensor:
    """The RMS-normalised and weighted row at `start`, rounded to its dtype after both operations."""
    row = load_row(start, offsets, mask)
    row = round_as(row * tl.rsqrt(tl.sum(row * row, 0) / width + eps), start)
    return round_as(row * round_as(load_row(weight, offsets, mask), start), start)


@triton.jit
def layer_normed(row: tl.tensor, mask: tl.tensor, width: tl.tensor, eps: tl.tensor) -> tl.tensor:
    """(row − mean) / sqrt(variance + eps) in float32, with the variance computed from row − mean."""
    centred = tl.where(mask, row - tl.sum(row, 0) / width, 0.0)
    return centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)


@triton.jit
def modulated(
    row: tl.tensor, scale: tl.tensor, shift: tl.tensor, offsets: tl.tensor, mask: tl.tensor, x: tl.tensor
) -> tl.tensor:
    """row · (1 + scale) + shift for pointers to one scale and shift, rounded to x's dtype but after the sum."""
    factor = round_as(1.0 + round_as(load_row(scale, offsets, mask), x), x)
    return round_as(round_as(row, x) * factor, x) + round_as(load_row(shift, offsets, mask), x)


@triton.jit
def store_row(
    out: tl.tensor,
    scales: tl.tensor | None,
    row: tl.tensor,
    width: tl.tensor,
    value: tl.tensor,
    offsets: tl.tensor,
    mask: tl.tensor,
    x: tl.tensor,
) -> None:
    """Stores a row rounded to x's dtype, and then in E4M3 with its scale if there are `scales`."""
    if scales is None:
        store_as(out + row * width + offsets, value, mask)
    else:
        store_fp8_row(out, scales, row, width, round_as(value, x), offsets, mask)


@triton.jit
def _rms_norm(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    eps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    row, offsets, mask = this_row(width, BLOCK)
    store_as(out + row * width + offsets, rms_normed(x + row * stride, weight, offsets, mask, width, eps), mask)


@triton.jit
def _rms_norm_rope(
    x: tl.tensor,
    weight: tl.tensor,
    cos: tl.tensor | None,
    sin: tl.tensor | None,
    out: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    length: tl.tensor,
    angle_batch: tl.tensor,
    head_width: tl.tensor,
    batch_stride: tl.tensor,
    token_stride: tl.tensor,
    head_stride: tl.tensor,
    channel_stride: tl.tensor,
    eps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    token, offsets, mask = this_row(width, BLOCK)
    row = rms_normed(x + token * stride, weight, offsets, mask, width, eps)
    if cos is not None and sin is not None:
        row = round_as(rotated(row, cos, sin, token, angle_batch * length, head_width // 2, BLOCK), x)
    out += token // length * batch_stride + token % length * token_stride
    out += (offsets // head_width).to(tl.int64) * head_stride + (offsets % head_width).to(tl.int64) * channel_stride
    store_as(out, row, mask)


@triton.jit
def _layer_norm_modulate(
    x: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    out: tl.tensor,
    out_scales: tl.tensor | None,
    width: tl.tensor,
    length: tl.tensor,
    scale_runs: tl.tensor,
    shift_runs: tl.tensor,
    scale_batch: tl.tensor,
    scale_run: tl.tensor,
    shift_batch: tl.tensor,
    shift_run: tl.tensor,
    eps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    row, offsets, mask = this_row(width, BLOCK)
    scale += run_offset(row, length, scale_runs, scale_batch, scale_run)
    shift += run_offset(row, length, shift_runs, shift_batch, shift_run)
    normed = layer_normed(load_row(x + row * width, offsets, mask), mask, width, eps)
    value = modulated(normed, scale, shift, offsets, mask, x)
    store_row(out, out_scales, row, width, value, offsets, mask, x)
