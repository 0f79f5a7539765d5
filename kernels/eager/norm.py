"""Normalisation, computed in float32 for any input dtype."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .rope import rope_rotate


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension.

    x `[..., C]`, weight `[C]`; returns x's shape and dtype. The normalised value is rounded to x's dtype before the
    product with the weight, as in Wan's q and k norms.
    """
    y = x.float()
    mean_square = torch.linalg.vecdot(y, y).unsqueeze(-1) / y.shape[-1]
    return (y * torch.rsqrt(mean_square + eps)).to(x.dtype) * weight.to(x.dtype)


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
    y = rms_norm(x, weight, eps).unflatten(-1, (heads, -1))
    if cos is not None and sin is not None:
        y = rope_rotate(y, cos, sin)
    if out is None:
        return y
    return out.copy_(y.clamp(-448, 448) if out.dtype == torch.float8_e4m3fn else y)


def layer_norm_modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """layernorm(x) · (1 + scale) + shift, with one scale and shift for each of F equal runs of tokens (adaLN).

    x `[B, L, C]`, scale and shift `[B, F, C]` with L a multiple of F; returns `[B, L, C]` in x's dtype. Rounded to x's
    dtype after the norm and after each operation of the modulation, as the models were trained.
    """
    batch, length, channels = x.shape
    y = F.layer_norm(x.float(), (channels,), eps=eps).to(x.dtype).view(batch, scale.shape[1], -1, channels)
    y = y * (1 + scale.to(x.dtype).unsqueeze(2)) + shift.to(x.dtype).unsqueeze(2)
    return y.view(batch, length, channels)
