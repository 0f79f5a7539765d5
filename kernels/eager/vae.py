"""Ops between the convolutions of a causal video VAE. Activations are channels-last, `[B, T, H, W, C]`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_silu_pad(x: Tensor, gamma: Tensor, past: Tensor | None) -> Tensor:
    """The two past frames and silu(x / rms(x) · gamma) over channels, concatenated: the input of a causal convolution.

    x `[B, T, H, W, C]`, gamma `[C]`, past `[B, 2, H, W, C]`, or None for zeros at the start of a film; returns
    `[B, T + 2, H, W, C]` in x's dtype. Rounded to x's dtype after gamma and after SiLU.
    """
    y = F.silu(F.rms_norm(x, gamma.shape, gamma, eps=1e-12))
    past = x.new_zeros(x.shape[0], 2, *x.shape[2:]) if past is None else past
    return torch.cat([past, y], dim=1)


def upsample_nearest(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling, `[B, T, H, W, C]` → `[B, T, 2H, 2W, C]`."""
    up = F.interpolate(x.flatten(0, 1).permute(0, 3, 1, 2), scale_factor=2.0, mode="nearest-exact")
    return up.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def to_uint8(video: Tensor) -> Tensor:
    """(clamp(x, −1, 1) + 1) · 127.5, rounded to nearest, ties to even; `[1, 3, T, H, W]` → `[T, H, W, 3]` uint8.

    Rounded to the video's dtype after the sum and after the product. NaN becomes 0.
    """
    return video[0].clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous()
