"""Gated residual sums, and the norms that follow them, one program per token."""

import torch
import triton
from torch import Tensor

from .fp8 import empty_fp8
from .gate_kernels import gate_residual_kernel, gate_residual_modulate_kernel, gate_residual_norm_kernel
from .rows import check_shape, launch, per_run


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
        *(gate_residual_kernel, batch * length, x.contiguous(), y.contiguous(), gate, out),
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
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return _launch_norm(x, y, gate, weight, bias, out, None, eps), out


def gate_residual_norm_fp8(
    x: Tensor, y: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`gate_residual_norm` with its norm by `quantize_fp8_rows`: the sum, codes `[B, L, C]` and scales `[B, L, 1]`."""
    codes, scales = empty_fp8(x)
    return _launch_norm(x, y, gate, weight, bias, codes, scales, eps), codes.view(torch.float8_e4m3fn), scales


def _launch_norm(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    out_scales: Tensor | None,
    eps: float,
) -> Tensor:
    """Writes the norm to `out` and returns the sum."""
    batch, length, width = x.shape
    check_shape("y", y, tuple(x.shape))
    check_shape("weight", weight, (width,))
    check_shape("bias", bias, (width,))
    gate = None if gate is None else per_run("gate", gate, x)
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch(
        *(gate_residual_norm_kernel, batch * length, x.contiguous(), y.contiguous(), gate),
        *(weight.contiguous(), bias.contiguous(), total, out, out_scales, width, length, *_layout(gate), eps),
        BLOCK=triton.next_power_of_2(width),
    )
    return total


def gate_residual_modulate(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(x + gate · y, `layer_norm_modulate` of that sum); without a gate the sum is x + y.

    x and y `[B, L, C]`, gate, scale and shift `[B, F, C]` with L a multiple of F; returns two `[B, L, C]` in x's dtype,
    rounded like `gate_residual` and `layer_norm_modulate`.
    """
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return _launch_modulate(x, y, gate, scale, shift, out, None, eps), out


def gate_residual_modulate_fp8(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`gate_residual_modulate` with its norm by `quantize_fp8_rows`: the sum, codes `[B, L, C]`, scales `[B, L, 1]`."""
    codes, scales = empty_fp8(x)
    return _launch_modulate(x, y, gate, scale, shift, codes, scales, eps), codes.view(torch.float8_e4m3fn), scales


def _launch_modulate(
    x: Tensor,
    y: Tensor,
    gate: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    out: Tensor,
    out_scales: Tensor | None,
    eps: float,
) -> Tensor:
    """Writes the modulated norm to `out` and returns the sum."""
    batch, length, width = x.shape
    check_shape("y", y, tuple(x.shape))
    gate = None if gate is None else per_run("gate", gate, x)
    scale, shift = per_run("scale", scale, x), per_run("shift", shift, x)
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch(
        *(
            gate_residual_modulate_kernel,
            batch * length,
            x.contiguous(),
            y.contiguous(),
            gate,
            scale,
            shift,
            total,
            out,
        ),
        *(out_scales, width, length, *_layout(gate), *_layout(scale), *_layout(shift), eps),
        BLOCK=triton.next_power_of_2(width),
    )
    return total


def _layout(value: Tensor | None) -> tuple[int, int, int]:
    """F, and the strides of B and F, of a value `[B, F, C]`; for no gate, values that are not used."""
    return (1, 0, 0) if value is None else (value.shape[1], value.stride(0), value.stride(1))
