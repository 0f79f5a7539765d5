"""Three-dimensional RoPE with computed angles: positions are real numbers and there is no table to run out of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import rope_rotate


@dataclass(frozen=True, slots=True)
class Rope:
    """Angles of a run of tokens as cos and sin, `[B or 1, tokens, head_dim / 2]`, float32."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """x `[B, tokens, heads, head_dim]` turned to its positions."""
        return rope_rotate(x, self.cos, self.sin)


def axis_pairs(head_dim: int) -> tuple[int, int, int]:
    """Channel pairs of a head that carry time, height and width: 22, 21, 21 of 64 in Wan."""
    pairs = head_dim // 2
    third = pairs // 3
    return pairs - 2 * third, third, third


def rope_angles(positions: Tensor, grid: tuple[int, int], head_dim: int) -> Rope:
    """Angles of the tokens (f, y, x), x fastest, of latent frames at `positions`.

    positions `[F]` or `[B, F]`, real-valued times in latent frames; grid: tokens down and across a frame, whose
    positions start at 0. Wan gives each axis its own base, ω_j = 10000^(−j / pairs of the axis); computed in float64.
    """
    time = positions.to(torch.float64).reshape(-1, positions.shape[-1])
    batch, frames = time.shape
    axes = (time, _range(grid[0], time), _range(grid[1], time))
    t, y, x = (
        position.unsqueeze(-1) * _frequencies(pairs, time.device)
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
    return torch.arange(count, dtype=like.dtype, device=like.device).unsqueeze(0)


def _frequencies(pairs: int, device: torch.device) -> Tensor:
    exponent = torch.arange(pairs, dtype=torch.float64, device=device) / pairs
    return torch.pow(10000.0, -exponent)
