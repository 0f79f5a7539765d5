"""The kernels of `gate`: gated residual sums, and the norms that follow them."""

import triton
import triton.language as tl

from .norm import layer_normed, modulated, store_row
from .rows import load_row, round_as, run_offset, store_as, this_row


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
def gate_residual_kernel(
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
def gate_residual_norm_kernel(
    x: tl.tensor,
    y: tl.tensor,
    gate: tl.tensor | None,
    weight: tl.tensor,
    bias: tl.tensor,
    total: tl.tensor,
    out: tl.tensor,
    out_scales: tl.tensor | None,
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
    store_row(out, out_scales, row, width, layer_normed(value, mask, width, eps) * w + b, offsets, mask, x)


@triton.jit
def gate_residual_modulate_kernel(
    x: tl.tensor,
    y: tl.tensor,
    gate: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    total: tl.tensor,
    out: tl.tensor,
    out_scales: tl.tensor | None,
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
    value = modulated(normed, scale, shift, offsets, mask, x)
    store_row(out, out_scales, row, width, value, offsets, mask, x)
