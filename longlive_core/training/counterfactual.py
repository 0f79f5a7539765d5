"""The counterfactual loss: a predicted hero must not resemble the heroes that could have been there instead.

The squared error of the flow is content with the mean of all shapes, and a decoder draws that mean as a circle. The
synthetic world can render the same moment with every other shape, so the loss measures how far a prediction x0 has
moved from the truth z towards another shape z_s, in the decoder's metric G:

    d_s = z_s − z        q_s = 2 <x0 − z, d_s>_G / <d_s, d_s>_G        loss = mean of max(q_s, 0)²

q is 0 at the truth, 1 half-way to the other shape and 2 at it. It has no scale, so two shapes that differ little
count as much as two that differ much.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..vae import WanVAE
from . import world

STEP = 0.3  # of the finite differences, in standard deviations of the latents
LATENT_FRAMES = 3  # of the clips on which the metric is measured
LEAST_DISTANCE = 1e-3  # keeps q finite where two shapes do not differ


@torch.inference_mode()
def decoder_metric(vae: WanVAE, seed: int = 0, clips: int = 3) -> Tensor:
    """The decoder's metric `[C, C]`, Jᵀ J: how the pixels of a latent cell answer to its channels.

    J is measured by finite differences in the middle frame of short clips, in all cells at once with random signs, and
    averaged over cells. The mean of the diagonal is 1. Needs the statistics of the latents in the VAE's configuration.
    """
    channels = vae.config.latent_channels
    metric = torch.zeros(channels, channels)
    for clip in range(clips):
        film = world.sample_film(np.random.default_rng((seed, 3, clip)), (1 + 4 * (LATENT_FRAMES - 1),))
        video = torch.from_numpy(world.render(film)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        latents = vae.normalise(vae.moments(video)[0])
        height, width = latents.shape[-2:]
        signs = torch.sign(torch.randn(height, width, generator=torch.Generator().manual_seed(seed + clip)))
        base = vae.reconstruct(vae.denormalise(latents))
        rows: list[Tensor] = []
        for channel in range(channels):
            moved = latents.clone()
            moved[0, channel, 1] += STEP * signs
            answer = (vae.reconstruct(vae.denormalise(moved)) - base)[0, :, 1:] / STEP
            # The sign of its cell cancels in each pixel, so that cells add up instead of cancelling each other.
            answer = answer.unflatten(2, (height, -1)).unflatten(4, (width, -1)) * signs[:, None, :, None]
            rows.append(answer.flatten())
        jacobian = torch.stack(rows)
        metric += jacobian @ jacobian.T
    return metric / metric.diagonal().mean()


def resemblance(prediction: Tensor, clean: Tensor, others: Tensor, metric: Tensor) -> Tensor:
    """q of each frame and other shape, `[N, S, F]`: 0 at the truth, 1 half-way to the other shape, 2 at it.

    prediction, clean: latents `[N, C, F, h, w]`. others: the same frames with S other shapes, `[N, S, C, F, h, w]`.
    metric: `[C, C]`.
    """
    apart = others - clean[:, None]
    weighted = torch.einsum("nscfhw,cd->nsdfhw", apart, metric)
    along = torch.einsum("nsdfhw,ndfhw->nsf", weighted, prediction - clean)
    return 2 * along / torch.einsum("nsdfhw,nsdfhw->nsf", weighted, apart).clamp(min=LEAST_DISTANCE)


def counterfactual_loss(prediction: Tensor, clean: Tensor, others: Tensor, metric: Tensor) -> Tensor:
    """Mean of max(q, 0)² over frames and other shapes, for the arguments of `resemblance`."""
    return resemblance(prediction, clean, others, metric).clamp(min=0).square().mean()
