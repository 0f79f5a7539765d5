"""Gated residual sums, and the norms that follow them, one program per token."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .norm import layer_normed, modulated
from .rows import check_shape, launch, load_row, per_run, round_as, run_offset, store_as, this_row


def gate_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate · y, with one gate for each of F equal runs of tokens.

    x and y `[B, L, C]`, gate `[B, F, C]` with L a multiple of F; returns `[B, L, C]` in x's dtype. The gated value is
    rounded to x's dtype before the sum.
    """
    batch, length, width = x.shape
    check_shape("y", y, tuple(x.shape))
    gate = per_run("gate", gate, x)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch(
        *(_gate_residual, batch * length, x.contiguous(), y.contiguous(), gate, out),
        *(width, length, *_layout(gate)),
        BLOCK=triton.next_power_of_2(width),
    )
    return out


def gate_residual_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(x + gate · y, layernorm of that sum · weight + bias); without a gate the sum is x + y.

    x and y `[B, L, C]`, gate `[B, F, C]` with L a multiple of F, weight and bias `[C]`; returns two `[B, L, C]` in x's
    dtype. The sum is that of `gate_residual`; the norm is rounded once, after the bias.
    """
    batch, length, width = x.shape
    check_shape("y", y, tuple(x.shape))
    check_shape("weight", weight, (width,))
    check_shape("bias", bias, (width,))
    gate = None if gate is None else per_run("gate", gate, x)
    total, out = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    launch(
        *(_gate_residual_norm, batch * length, x.contiguous(), y.contiguous(), gate),
        *(weight.contiguous(), bias.contiguous(), total, out, width, length, *_layout(gate), eps),
        BLOCK=triton.next_power_of_2(width),
    )
    return total, out


def gate_residual_modulate(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(x + gate · y, `layer_norm_modulate` of that sum); without a gate the sum is x + y.

    x and y `[B, L, C]`, gate, scale and shift `[B, F, C]` with L a multiple of F; returns two `[B, L, C]` in x's dtype,
    rounded like `gate_residual` and `layer_norm_modulate`.
    """
    batch, length, width = x.shape
    check_shape("y", y, tuple(x.shape))
    gate = None if gate is None else per_run("gate", gate, x)
    scale, shift = per_run("scale", scale, x), per_run("shift", shift, x)
    total, out = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    launch(
        *(_gate_residual_modulate, batch * length, x.contiguous(), y.contiguous(), gate, scale, shift, total, out),
        *(width, length, *_layout(gate), *_layout(scale), *_layout(shift), eps),
        BLOCK=triton.next_power_of_2(width),
    )
    return total, out


def _layout(value: Tensor | None) -> tuple[int, int, int]:
    """F, and the strides of B and F, of a value `[B, F, C]`; for no gate, values that are not used."""
    return (1, 0, 0) if value is None else (value.shape[1], value.stride(0), value.stride(1))


@triton.jit
def gated(
    x: tl.tensor,
    y: tl.tensor,
    gate: tl.tensor | None,
    row: tl.tensor,
    offsets: tl.tensor,
    mask: tl.tensor,
    width: tl.tensor,
    length: tl.tensor,
    runs: tl.tensor,
    gate_batch: tl.tensor,
    gate_run: tl.tensor,
) -> tl.tensor:
    """Row `row` of x + gate · y, rounded to x's dtype after the product and the sum."""
    value = load_row(y + row * width, offsets, mask)
    if gate is not None:
        factor = load_row(gate + run_offset(row, length, runs, gate_batch, gate_run), offsets, mask)
        value = round_as(value * round_as(factor, x), x)
    return round_as(load_row(x + row * width, offsets, mask) + value, x)


@triton.jit
def _gate_residual(
    x: tl.tensor,
    y: tl.tensor,
    gate: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    length: tl.tensor,
    runs: tl.tensor,
    gate_batch: tl.tensor,
    gate_run: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    row, offsets, mask = this_row(width, BLOCK)
    value = gated(x, y, gate, row, offsets, mask, width, length, runs, gate_batch, gate_run)
    store_as(out + row * width + offsets, value, mask)


@triton.jit
def _gate_residual_norm(
    x: tl.tensor,
    y: tl.tensor,
    gate: tl.tensor | None,
    weight: tl.tensor,
    bias: tl.tensor,
    total: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    length: tl.tensor,
    runs: tl.tensor,
    gate_batch: tl.tensor,
    gate_run: tl.tensor,
    eps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    row, offsets, mask = this_row(width, BLOCK)
    value = gated(x, y, gate, row, offsets, mask, width, length, runs, gate_batch, gate_run)
    store_as(total + row * width + offsets, value, mask)
    w, b = round_as(load_row(weight, offsets, mask), x), round_as(load_row(bias, offsets, mask), x)
    store_as(out + row * width + offsets, layer_normed(value, mask, width, eps) * w + b, mask)


@triton.jit
def _gate_residual_modulate(
    x: tl.tensor,
    y: tl.tensor,
    gate: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    total: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    length: tl.tensor,
    gate_runs: tl.tensor,
    gate_batch: tl.tensor,
    gate_run: tl.tensor,
    scale_runs: tl.tensor,
    scale_batch: tl.tensor,
    scale_run: tl.tensor,
    shift_runs: tl.tensor,
    shift_batch: tl.tensor,
    shift_run: tl.tensor,
    eps: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    row, offsets, mask = this_row(width, BLOCK)
    scale += run_offset(row, length, scale_runs, scale_batch, scale_run)
    shift += run_offset(row, length, shift_runs, shift_batch, shift_run)
    value = gated(x, y, gate, row, offsets, mask, width, length, gate_runs, gate_batch, gate_run)
    store_as(total + row * width + offsets, value, mask)
    normed = layer_normed(value, mask, width, eps)
    store_as(out + row * width + offsets, modulated(normed, scale, shift, offsets, mask, out), mask)
