"""Gated residual sums, and the norms that follow them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from .norm import layer_norm_modulate


def gate_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate · y, with one gate for each of F equal runs of tokens.

    x and y `[B, L, C]`, gate `[B, F, C]` with L a multiple of F; returns `[B, L, C]` in x's dtype. The gated value is
    rounded to x's dtype before the sum, as the models were trained.
    """
    batch, length, channels = x.shape
    gated = y.view(batch, gate.shape[1], -1, channels) * gate.to(x.dtype).unsqueeze(2)
    return x + gated.view(batch, length, channels)


def gate_residual_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(x + gate · y, layernorm of that sum · weight + bias); without a gate the sum is x + y.

    x and y `[B, L, C]`, gate `[B, F, C]` with L a multiple of F, weight and bias `[C]`; returns two `[B, L, C]` in x's
    dtype. The sum is that of `gate_residual`; the norm is rounded once, after the bias, like `torch.nn.LayerNorm`.
    """
    total = x + y if gate is None else gate_residual(x, y, gate)
    return total, F.layer_norm(total, weight.shape, weight.to(x.dtype), bias.to(x.dtype), eps)


def gate_residual_modulate(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(x + gate · y, `layer_norm_modulate` of that sum); without a gate the sum is x + y.

    x and y `[B, L, C]`, gate, scale and shift `[B, F, C]` with L a multiple of F; returns two `[B, L, C]` in x's dtype,
    rounded like `gate_residual` and `layer_norm_modulate`.
    """
    total = x + y if gate is None else gate_residual(x, y, gate)
    return total, layer_norm_modulate(total, scale, shift, eps)
