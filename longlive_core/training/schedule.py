"""The timesteps a flow model is trained at: 1000 noise levels, shifted towards noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TimestepTable:
    """Noise levels from most to least: `sigmas` in (0, 1], `timesteps` = 1000 sigma, `weights` of the loss, `[N]` each.

    float32 on the CPU. The weights are a bell around t = 500, lowered to 0 at its least and scaled to a mean of 1.
    """

    sigmas: Tensor
    timesteps: Tensor
    weights: Tensor

    @classmethod
    def shifted(cls, shift: float = 5.0, entries: int = 1000) -> TimestepTable:
        """sigma = shift · b / (1 + (shift − 1) · b) for b evenly from 1 to 1 / entries."""
        base = torch.linspace(1.0, 1.0 / entries, entries, dtype=torch.float64)
        sigmas = shift * base / (1 + (shift - 1) * base)
        timesteps = 1000 * sigmas
        bell = torch.exp(-2 * ((timesteps - 500) / 1000) ** 2)
        weights = bell - bell.min()
        return cls(sigmas.float(), timesteps.float(), (weights / weights.mean()).float())

    def index(self, t: Tensor) -> Tensor:
        """Entry nearest to each timestep, int64, in t's shape."""
        ascending = self.timesteps.flip(0).to(t.device)
        right = torch.searchsorted(ascending, t.float().contiguous()).clamp(1, len(ascending) - 1)
        nearer_left = t - ascending[right - 1] <= ascending[right] - t
        return len(ascending) - 1 - torch.where(nearer_left, right - 1, right)


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 − sigma) · clean + sigma · noise; sigma broadcasts from the right-most dimensions."""
    return (1 - sigma) * clean + sigma * noise


def clean_from_flow(noisy: Tensor, flow: Tensor, sigma: Tensor) -> Tensor:
    """noisy − sigma · flow, in float64: what a flow says the clean latents are; returns noisy's dtype."""
    return (noisy.double() - sigma.double() * flow.double()).to(noisy.dtype)
