"""Timesteps for training a flow-matching model: 1000 noise levels, shifted towards high noise, and samplers of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The distillation of LongLive 2.0 trains at timesteps within these bounds.
MIN_DMD_TIMESTEP, MAX_DMD_TIMESTEP = 20.0, 980.0


@dataclass(frozen=True, slots=True)
class NoiseLevels:
    """Noise levels of latent frames: model input `timesteps`, `sigmas` of the noise and loss `weights`.

    All three have the same shape `[...]`, `[B, F]` as a rule, and are float32.
    """

    timesteps: Tensor
    sigmas: Tensor
    weights: Tensor


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
        """sigma = shift · b / (1 + (shift − 1) · b), with b evenly spaced from 1 to 1 / entries.

        Computed in float32 as LongLive 2.0 does, so that the nearest entry of a timestep is the same one.
        """
        base = torch.linspace(1.0, 0.0, entries + 1)[:-1]
        sigmas = shift * base / (1 + (shift - 1) * base)
        timesteps = 1000 * sigmas
        bell = torch.exp(-2 * ((timesteps - 500) / 1000) ** 2)
        weights = bell - bell.min()
        return cls(sigmas, timesteps, weights * (entries / weights.sum()))

    def index(self, t: Tensor) -> Tensor:
        """Index of the entry nearest to each timestep, int64, in the shape of `t`.

        Of two entries that are equally near, it is the first one, which is noisier.
        """
        table = self.timesteps.to(t.device)
        return (table - t.float().unsqueeze(-1)).abs().argmin(-1)

    def at(self, t: Tensor) -> NoiseLevels:
        """Levels for timesteps `[...]`: the model gets `t` itself; sigma and weight are those of the nearest entry."""
        index = self.index(t)
        return NoiseLevels(t.float(), self.sigmas.to(t.device)[index], self.weights.to(t.device)[index])

    def levels(self, index: Tensor, *, bf16: bool = False) -> NoiseLevels:
        """Levels of the entries `index` `[...]`.

        bf16: round the timestep to bfloat16 before anything else, as LongLive 2.0 trains. That leaves 294 distinct
        timesteps, and moves sigma by up to 0.0025.
        """
        t = self.timesteps.to(index.device)[index]
        return self.at(t.bfloat16() if bf16 else t)


def block_indices(
    batch: int,
    frames: int,
    block_frames: int,
    *,
    entries: int = 1000,
    single_first_frame: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random table indices of each latent frame, int64 `[B, F]`, the same for all frames of a block.

    An index is drawn for every frame, and each block takes the one of its first frame. single_first_frame: the first
    block has one frame only. Raises ValueError if the frames are not whole blocks.
    """
    single = int(single_first_frame)
    if frames <= single or (frames - single) % block_frames:
        first = "after the first frame " if single else ""
        raise ValueError(f"{frames} latent frames are {first}not whole blocks of {block_frames}; trim the film")
    drawn = torch.randint(entries, (batch, frames), generator=generator)
    blocks = drawn[:, single::block_frames].repeat_interleave(block_frames, dim=1)
    return torch.cat((drawn[:, :single], blocks), dim=1)


def clip_indices(batch: int, frames: int, *, entries: int = 1000, generator: torch.Generator | None = None) -> Tensor:
    """Random table indices of each latent frame, int64 `[B, F]`, the same for all frames of a clip."""
    return torch.randint(entries, (batch, 1), generator=generator).expand(batch, frames)


def dmd_timesteps(draws: Tensor, shift: float = 5.0) -> Tensor:
    """Timesteps at which distillation compares scores, float32 in the shape of `draws`, integers 0 … 999.

    1000 · shift · s / (1 + (shift − 1) · s) with s = draw / 1000, clamped to 20 … 980.
    """
    share = draws.float() / 1000
    t = 1000 * (shift * share / (1 + (shift - 1) * share))
    return t.clamp(MIN_DMD_TIMESTEP, MAX_DMD_TIMESTEP)


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 − sigma) · clean + sigma · noise, in the shape of `clean`; `sigma` broadcasts from the last dimensions."""
    return (1 - sigma) * clean + sigma * noise


def clean_from_flow(noisy: Tensor, flow: Tensor, sigma: Tensor) -> Tensor:
    """Clean latents predicted by a flow: noisy − sigma · flow, computed in float64.

    All three have the same number of dimensions and broadcast. Returns the dtype of `noisy`.
    """
    return (noisy.double() - sigma.double() * flow.double()).to(noisy.dtype)
