"""Measures of a VAE on synthetic films: the statistics of its latents, and PSNR."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..vae import VAEConfig, WanVAE
from . import world
from .films import film_video, training_film


@torch.inference_mode()
def film_statistics(vae: WanVAE, seed: int, count: int = 48) -> VAEConfig:
    """The VAE's configuration with the statistics of the latents of `count` films that are in no data set."""
    films = [training_film(seed + 1_000_000, index)[0] for index in range(count)]
    return latent_statistics(vae, torch.cat([vae.encode(film_video([film])) for film in films], dim=2))


def latent_statistics(vae: WanVAE, latents: Tensor) -> VAEConfig:
    """The VAE's configuration with mean and standard deviation of each channel of latents `[N, C, F, H, W]`.

    Standard deviations are at least a tenth of their median.
    """
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    std = std.clamp(min=0.1 * std.median().item())
    return replace(vae.config, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


@torch.no_grad()
def held_out_psnr(vae: WanVAE, seed: int, films: int = 4, frames: int = 33) -> float:
    """Mean PSNR in dB of held-out films of two shots, encoded and decoded."""
    device, values = next(vae.parameters()).device, list[float]()
    for index in range(films):
        film = world.sample_film(np.random.default_rng((seed, 777, index)), (frames // 2, frames))
        pixels = film_video([film], 0, frames).to(device)
        error = (vae.decode(vae.encode(pixels)).clamp(-1, 1) - pixels) / 2
        values.append(-10 * torch.log10(error.square().mean()).item())
    return float(np.mean(values))
