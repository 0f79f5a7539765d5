"""Timesteps for training a flow-matching model: 1000 noise levels, shifted towards high noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TimestepTable:
    """Noise levels in descending order: `sigmas` in (0, 1], `timesteps` = 1000 · sigma and loss `weights`, each `[N]`.

    float32 on the CPU. The weights follow a bell curve around t = 500, minus its minimum, scaled to a mean of 1.
    """

    sigmas: Tensor
    timesteps: Tensor
    weights: Tensor

    @classmethod
    def shifted(cls, shift: float = 5.0, entries: int = 1000) -> TimestepTable:
        """sigma = shift · b / (1 + (shift − 1) · b), with b evenly spaced from 1 to 1 / entries."""
        base = torch.linspace(1.0, 1.0 / entries, entries, dtype=torch.float64)
        sigmas = shift * base / (1 + (shift - 1) * base)
        timesteps = 1000 * sigmas
        bell = torch.exp(-2 * ((timesteps - 500) / 1000) ** 2)
        weights = bell - bell.min()
        return cls(sigmas.float(), timesteps.float(), (weights / weights.mean()).float())

    def index(self, t: Tensor) -> Tensor:
        """Index of the entry nearest to each timestep, int64, in the shape of `t`."""
        ascending = self.timesteps.flip(0).to(t.device)
        right = torch.searchsorted(ascending, t.float().contiguous()).clamp(1, len(ascending) - 1)
        nearer_left = t - ascending[right - 1] <= ascending[right] - t
        return len(ascending) - 1 - torch.where(nearer_left, right - 1, right)


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 − sigma) · clean + sigma · noise, in the shape of `clean`; `sigma` broadcasts from the last dimensions."""
    return (1 - sigma) * clean + sigma * noise


def clean_from_flow(noisy: Tensor, flow: Tensor, sigma: Tensor) -> Tensor:
    """Clean latents predicted by a flow: noisy − sigma · flow, computed in float64.

    All three have the same number of dimensions and broadcast. Returns the dtype of `noisy`.
    """
    return (noisy.double() - sigma.double() * flow.double()).to(noisy.dtype)
