"""Losses of distribution matching distillation (DMD). Pure functions.

Yin et al. 2024, arXiv 2405.14867: the gradient of the divergence between the generator's films and the real ones is the
difference of two scores, that of a critic trained on the generator's films and that of the frozen teacher. LongLive 2.0
normalises it per block. All latents are `[B, C, F, H, W]`; `first` is the number of leading frames that are given and
do not count (image to video).
"""

from __future__ import annotations

import torch
from torch import Tensor

REAL_GUIDANCE = 4.0


def guided(positive: Tensor, negative: Tensor, guidance: float = REAL_GUIDANCE) -> Tensor:
    """Classifier-free guidance in the usual convention, negative + guidance · (positive − negative); 1 turns it off."""
    return positive + (guidance - 1) * (positive - negative)


def dmd_gradient(x: Tensor, fake: Tensor, real: Tensor, block_frames: int) -> Tensor:
    """(fake − real) / mean |x − real|, with one mean for each block of each film; NaN is replaced by 0.

    x: the generator's latents. fake, real: clean latents that critic and teacher predict from the same noisy ones.
    Returns the shape of x. Raises ValueError if the frames are not whole blocks.
    """
    if x.shape[2] == 0 or x.shape[2] % block_frames:
        raise ValueError(f"{x.shape[2]} latent frames are not whole blocks of {block_frames}; trim the film")
    distance = (x - real).abs().unflatten(2, (-1, block_frames)).mean(dim=(1, 3, 4, 5))
    norm = distance.repeat_interleave(block_frames, dim=1)[:, None, :, None, None]
    return torch.nan_to_num((fake - real) / norm)


def generator_loss(x: Tensor, gradient: Tensor, first: int = 0) -> Tensor:
    """½ · mean (x − stop(x − gradient))², a float64 scalar. Its value is ½ · mean gradient², its slope gradient / n."""
    counted = x[:, :, first:].double()
    target = (counted - gradient[:, :, first:].double()).detach()
    return 0.5 * (counted - target).square().mean()


def critic_loss(flow: Tensor, noise: Tensor, x: Tensor, first: int = 0) -> Tensor:
    """mean (flow − (noise − x))² without a weight of the timestep, a float32 scalar.

    flow: the critic's, for the noisy latents that `noise` and the generator's latents x give.
    """
    error = flow.float() - (noise.float() - x.float())
    return error[:, :, first:].square().mean()
