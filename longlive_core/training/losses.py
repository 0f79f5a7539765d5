"""The loss of flow matching over the latent frames of a film."""

from __future__ import annotations

import torch
from torch import Tensor

from ..parallel import ALONE, Ranks, all_sum


def flow_loss(flow: Tensor, target: Tensor, weight: Tensor, mask: Tensor | None = None) -> Tensor:
    """Weighted mean squared error of a flow, a float32 scalar: `mean_over_frames` of `frame_losses`.

    flow and target: `[B, C, F, H, W]`. weight: of the noise level of each latent frame, `[B, F]`. mask: frames that
    count, `[B, F]`; all of them by default.
    """
    return mean_over_frames(frame_losses(flow, target, weight), mask)


def frame_losses(flow: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """weight · mean of (flow − target)² over channels and cells, for each latent frame: `[B, F]`, in float32."""
    return weight.float() * (flow.float() - target.float()).square().mean(dim=(1, 3, 4))


def mean_over_frames(losses: Tensor, mask: Tensor | None = None, ranks: Ranks = ALONE) -> Tensor:
    """Mean of `losses` `[B, F]` over the frames where `mask` is 1: Σ mask · loss / max(1, Σ mask).

    ranks: processes that share the frames evenly, of which this one has F. The mean of what they return is then the
    mean over the frames of all: each divides by its share of the count, Σ mask of all / ranks, and not by the whole of
    it, because the gradients of the ranks are averaged once more.
    """
    if mask is None:
        return losses.mean()
    counted = mask.to(losses.dtype)
    count = all_sum(counted.sum(), ranks).clamp(min=1) / ranks.size
    # A sum over the frames that count, because 0 · NaN of a frame that does not count would be NaN.
    return losses.where(counted > 0, torch.zeros_like(losses)).mul(counted).sum() / count
