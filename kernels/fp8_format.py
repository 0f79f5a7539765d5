"""Scales of FP8 tensors that both implementations of an op compute alike."""

from __future__ import annotations

import torch
from torch import Tensor

E4M3_MAX = 448.0


def head_scales(x: Tensor) -> Tensor:
    """Scale of each head, its largest magnitude / 448, and 1 for a head of zeros: x `[B, L, H, D]` → `[B, 1, H, 1]`.

    The norm reads x once and writes no magnitudes.
    """
    largest = torch.linalg.vector_norm(x, torch.inf, dim=(1, 3), keepdim=True, dtype=torch.float32)
    # Divided by a tensor, because PyTorch on a GPU replaces a division by a number with a product by its reciprocal.
    scales = largest / torch.full_like(largest, E4M3_MAX)
    return torch.where(scales == 0, 1, scales)
