"""Normalisation in float32, whatever the dtype of the input."""

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension.

    x `[..., C]`, weight `[C]`; returns x's shape and dtype. The product with the weight is taken in x's dtype, after
    the normalised value was rounded to it, as Wan's q and k norms do.
    """
    y = x.float()
    mean_square = torch.linalg.vecdot(y, y).unsqueeze(-1) / y.shape[-1]
    return (y * torch.rsqrt(mean_square + eps)).to(x.dtype) * weight.to(x.dtype)


def layer_norm_modulate(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """layernorm(x) · (1 + scale) + shift, with one scale and shift for each of F runs of tokens (adaLN).

    x `[B, L, C]`, scale and shift `[B, F, C]` with L a multiple of F; returns `[B, L, C]` in x's dtype. Rounded to x's
    dtype after the norm and after each operation of the modulation, which is what the models were trained with.
    """
    batch, length, channels = x.shape
    y = F.layer_norm(x.float(), (channels,), eps=eps).to(x.dtype).view(batch, scale.shape[1], -1, channels)
    y = y * (1 + scale.to(x.dtype).unsqueeze(2)) + shift.to(x.dtype).unsqueeze(2)
    return y.view(batch, length, channels)
