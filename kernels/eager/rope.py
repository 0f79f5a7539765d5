"""Rotary position embedding over adjacent channel pairs."""

import torch
from torch import Tensor


def rope_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates channels (2j, 2j+1) of every head by angle j of the token.

    x `[B, L, H, D]`, cos and sin `[B or 1, L, D/2]` in float32; returns x's shape and dtype. Computed in float32.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    rotated = pairs * torch.complex(cos, sin).unsqueeze(2)
    return torch.view_as_real(rotated).flatten(-2).to(x.dtype)
