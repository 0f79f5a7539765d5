"""Rotary position embedding over adjacent channel pairs."""

import torch
from torch import Tensor


def rope_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates each pair of adjacent channels (2j, 2j+1) of every head by its token's angle j.

    x `[B, L, H, D]`, cos and sin `[B or 1, L, D/2]` in float32; returns x's shape and dtype, computed in float32.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    turned = pairs * torch.complex(cos, sin).unsqueeze(2)
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
