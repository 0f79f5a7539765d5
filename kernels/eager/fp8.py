"""FP8 quantisation of rows, alone and after ops whose results are multiplied next, and of the heads of attention."""

from __future__ import annotations

import torch
from torch import Tensor

from ..fp8_format import E4M3_MAX, head_scales
from .activation import gelu_tanh
from .gate import gate_residual_modulate, gate_residual_norm
from .norm import layer_norm_modulate


def quantize_fp8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises to float8_e4m3fn: x ≈ codes · scales, where the scale of a row is its largest magnitude / 448.

    x `[M, K]` → codes float8_e4m3fn `[M, K]` (x / scale, to nearest, ties to even) and scales float32 `[M, 1]`, 1 for a
    row of zeros. Divisions are exact float32 divisions. A NaN makes its whole row NaN.
    """
    largest = x.abs().amax(-1, keepdim=True).float()
    # Divided by a tensor, because PyTorch on a GPU replaces a division by a number with a product by its reciprocal.
    scales = largest / torch.full_like(largest, E4M3_MAX)
    scales = torch.where(scales == 0, 1, scales)
    return (x.float() / scales).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scales


def quantize_fp8_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_fp8_rows` with one scale for all tokens of a head, as FP8 attention takes q, k and v.

    x `[B, L, H, D]` → codes float8_e4m3fn `[B, L, H, D]` and scales float32 `[B, 1, H, 1]`.
    """
    scales = head_scales(x)
    return (x.float() / scales).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scales


def gelu_tanh_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_fp8_rows` of `gelu_tanh`: x `[..., K]` → codes float8_e4m3fn `[..., K]`, scales float32 `[..., 1]`."""
    return _quantize(gelu_tanh(x))


def layer_norm_modulate_fp8(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`quantize_fp8_rows` of `layer_norm_modulate`: codes float8_e4m3fn `[B, L, C]` and scales float32 `[B, L, 1]`."""
    return _quantize(layer_norm_modulate(x, scale, shift, eps))


def gate_residual_norm_fp8(
    x: Tensor, y: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`gate_residual_norm` with its norm by `quantize_fp8_rows`: the sum, codes `[B, L, C]` and scales `[B, L, 1]`."""
    total, normed = gate_residual_norm(x, y, gate, weight, bias, eps)
    return total, *_quantize(normed)


def gate_residual_modulate_fp8(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`gate_residual_modulate` with its norm by `quantize_fp8_rows`: the sum, codes `[B, L, C]`, scales `[B, L, 1]`."""
    total, normed = gate_residual_modulate(x, y, gate, scale, shift, eps)
    return total, *_quantize(normed)


def _quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_fp8_rows` of x `[..., K]`."""
    codes, scales = quantize_fp8_rows(x.reshape(-1, x.shape[-1]))
    return codes.view(x.shape), scales.view(*x.shape[:-1], 1)
