"""The ops in front of linear layers. They write what the layers multiply: E4M3 with row scales for layers in FP8.

Where a LoRA is beside such a layer, which needs the input unrounded, the op stays as it is and its result is quantised
once for all layers that take it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...kernels import (
    gate_residual_modulate,
    gate_residual_modulate_fp8,
    gate_residual_norm,
    gate_residual_norm_fp8,
    gelu_tanh_fp8,
    layer_norm_modulate,
    layer_norm_modulate_fp8,
)
from .fp8 import FP8Rows, Rows
from .linears import takes_fp8


def modulated_norm(layers: Sequence[nn.Module], x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Rows:
    """`layer_norm_modulate` for `layers`."""
    if all(takes_fp8(layer) for layer in layers):
        return FP8Rows(*layer_norm_modulate_fp8(x, scale, shift, eps), x.dtype)
    return layer_norm_modulate(x, scale, shift, eps)


def residual_norm(
    layer: nn.Module, x: Tensor, y: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Rows]:
    """`gate_residual_norm`, its norm for `layer`."""
    if takes_fp8(layer):
        total, codes, scales = gate_residual_norm_fp8(x, y, gate, weight, bias, eps)
        return total, FP8Rows(codes, scales, x.dtype)
    return gate_residual_norm(x, y, gate, weight, bias, eps)


def residual_modulate(
    layer: nn.Module, x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Rows]:
    """`gate_residual_modulate`, its norm for `layer`."""
    if takes_fp8(layer):
        total, codes, scales = gate_residual_modulate_fp8(x, y, gate, scale, shift, eps)
        return total, FP8Rows(codes, scales, x.dtype)
    return gate_residual_modulate(x, y, gate, scale, shift, eps)


def feed_forward(layers: nn.Sequential, x: Rows) -> Tensor:
    """Two linear layers with GELU between them."""
    first, activation, second = layers
    if not takes_fp8(second):
        return second(activation(first(x)))
    hidden = first(x)
    return second(FP8Rows(*gelu_tanh_fp8(hidden), hidden.dtype))
