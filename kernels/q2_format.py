"""The q2 number format: residuals of centroids in 2 bits, after Quant VideoGen (Xi et al., 2026, arXiv 2602.02958).

A number is the sum of one centroid of each stage, and ± ½ or ± 1½ times the scale of its group of channels times the
spread of its channel. Centroids and spreads are those of one head in one block of tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

CANDIDATES = (0.4, 0.5, 0.6)
"""A group's scale is one of these times its largest magnitude: the one with the smallest squared error."""

E4M3_MAX = 448.0


def group_of(width: int) -> int:
    """The number of channels that share a scale: 32, or 16 if the width of a head is no multiple of 32."""
    return 32 if width % 32 == 0 else 16


def index_bits(count: int) -> int:
    """Bits of an index of one of `count` centroids, so that an index lies within one byte: 0, 1, 2, 4 or 8."""
    return next(bits for bits in (0, 1, 2, 4, 8) if count <= 1 << bits)


def pack_indices(indices: Tensor, count: int) -> Tensor:
    """Indices of `count` centroids, int64 `[B, T, N, H]` for N stages → uint8 `[B, T · N · bits / 8, H, 1]`.

    T · N · bits is a multiple of 8.
    """
    bits = index_bits(count)
    flat = indices.flatten(1, 2)
    if not bits:
        return flat.new_empty(len(flat), 0, flat.shape[2], 1, dtype=torch.uint8)
    parts = flat.unflatten(1, (-1, 8 // bits))
    shifts = torch.arange(0, 8, bits, device=indices.device)
    return (parts << shifts[:, None]).sum(2).to(torch.uint8).unsqueeze(-1)


def unpack_indices(packed: Tensor, tokens: int, stages: int, count: int) -> Tensor:
    """The inverse of `pack_indices`: `[B, P, H, 1]` → int64 `[B, T, N, H]`."""
    bits = index_bits(count)
    if not bits:
        return packed.new_zeros(len(packed), tokens, stages, packed.shape[2], dtype=torch.int64)
    shifts = torch.arange(0, 8, bits, device=packed.device)
    parts = packed.transpose(2, 3).long() >> shifts[:, None] & (1 << bits) - 1
    return parts.flatten(1, 2).unflatten(1, (tokens, stages))
