"""Three-dimensional RoPE. Angles are computed from real-valued positions, so there is no table that limits them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import rope_rotate


@dataclass(frozen=True, slots=True)
class Rope:
    """cos and sin of the angles of consecutive tokens, `[B or 1, tokens, head_dim / 2]`, float32."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotates x `[B, tokens, heads, head_dim]` by the angles of its tokens; returns the same shape."""
        return rope_rotate(x, self.cos, self.sin)

    def tokens(self, rows: slice) -> Rope:
        """The angles of some of the tokens."""
        return Rope(self.cos[:, rows], self.sin[:, rows])


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Numbers of channel pairs of a head for time, height and width; (22, 21, 21) for Wan's 64 pairs."""
    pairs = head_dim // 2
    third = pairs // 3
    return pairs - 2 * third, third, third


def rope_angles(positions: Tensor, grid: tuple[int, int], head_dim: int) -> Rope:
    """Angles of the tokens of latent frames, in the order (f, y, x), computed in float64.

    positions: `[F]` or `[B, F]`, real-valued times in latent frames. grid: rows and columns of tokens in a frame, whose
    positions are 0, 1, …. Frequencies per axis are Wan's, ω_j = 10000^(−j / pairs of the axis).
    """
    time = positions.to(torch.float64).reshape(-1, positions.shape[-1])
    batch, frames = time.shape
    axes = (time, _range(grid[0], time), _range(grid[1], time))
    t, y, x = (
        position.unsqueeze(-1) * frequencies(pairs, time.device)
        for position, pairs in zip(axes, axis_pairs(head_dim), strict=True)
    )
    shape = (batch, frames, *grid)
    angles = torch.cat(
        (
            t[:, :, None, None].expand(*shape, -1),
            y[:, None, :, None].expand(*shape, -1),
            x[:, None, None, :].expand(*shape, -1),
        ),
        dim=-1,
    ).flatten(1, 3)
    return Rope(angles.cos().float(), angles.sin().float())


def _range(count: int, like: Tensor) -> Tensor:
    """0, 1, … `[1, count]`, with the dtype and device of `like`."""
    return torch.arange(count, dtype=like.dtype, device=like.device).unsqueeze(0)


def frequencies(pairs: int, device: torch.device) -> Tensor:
    """ω_j = 10000^(−j / pairs), `[pairs]` float64."""
    exponent = torch.arange(pairs, dtype=torch.float64, device=device) / pairs
    return torch.pow(10000.0, -exponent)
