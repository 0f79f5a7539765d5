"""Losses of LongLive Mini's VAE, of clips `[B, 3, T, S, S]` in [−1, 1] and masks of the hero `[B, 1, T, S, S]`."""

from __future__ import annotations

import torch
from torch import Tensor

from ..vae import WanVAE

HERO_WEIGHT = 4.0  # weight of the hero's pixels in the loss
LATENT_NOISE = 0.2  # highest noise level in standard deviations of the latents
KL_WEIGHT = 1e-4


def weighted_error(video: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error of video, in which pixels of the hero count HERO_WEIGHT times."""
    weight = 1 + (HERO_WEIGHT - 1) * mask
    return (weight * (video - target).abs()).mean() / weight.mean()


def reconstruction_loss(vae: WanVAE, video: Tensor, mask: Tensor, noise: torch.Generator) -> Tensor:
    """`weighted_error` of a reconstruction from a sampled latent, plus the KL divergence of the posterior.

    noise: on the CPU, so that every device trains on the same numbers.
    """
    mean, log_variance = vae.moments(video)
    sample = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=noise).to(mean)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return weighted_error(vae.reconstruct(sample), video, mask) + KL_WEIGHT * kl


def decoder_loss(vae: WanVAE, video: Tensor, mask: Tensor, noise: torch.Generator) -> Tensor:
    """`weighted_error` of a reconstruction from latents with noise of up to LATENT_NOISE standard deviations.

    A sampler's latents have errors, too. The VAE's configuration must hold the statistics of its latents. noise: on the
    CPU.
    """
    with torch.no_grad():
        latents = vae.normalise(vae.moments(video)[0])
        level = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, 1, generator=noise)
        latents = vae.denormalise(latents + (level * torch.randn(latents.shape, generator=noise)).to(latents))
    return weighted_error(vae.reconstruct(latents), video, mask)
