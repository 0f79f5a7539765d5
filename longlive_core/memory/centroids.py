"""Centroids of the keys, or values, of a block: what tokens have in common, subtracted before they are rounded.

Quant VideoGen (Xi et al., 2026, arXiv 2602.02958) calls it semantic-aware smoothing, and several stages of it, each of
what the one before left over, progressive residual quantisation. Here the tokens of each head are rounded to whole
numbers of −127 … 127 for each stage, and centroids are whole numbers too. float32 then holds every distance and sum
exactly, so that a head has the same centroids on every device, in any batch and beside any other heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 127
"""The largest whole number."""
WIDEST = 256
"""The largest width of a head: 3 · 256 · 127² is below 2^24, where float32 begins to skip whole numbers."""

_SAMPLE = 1024
"""The number of tokens that centroids are fitted to."""
_STRIDE = 1_000_003
"""The tokens of the sample are so far apart, modulo their number: a prime, so that it has columns of all kinds."""
_ROUNDS = 8
"""Rounds of k-means."""
_LEAST_SPREAD = 0.25
"""The mean distance of numbers from the whole number next to them."""


@dataclass(frozen=True, slots=True)
class Centroids:
    """N stages of K centroids of a block `[B, T, H, D]`.

    values: int8 `[B, N · K, H, D]`, in units of steps, float32 `[B, N, H, 1]`. indices: int64 `[B, T, N, H]`, of each
    token's centroids. channels: float8_e4m3fn `[B, 1, H, D]`, the mean magnitude of what is left over of each channel,
    in units of the last step. residual: float32 `[B, T, H, D]`, what is left over.
    """

    values: Tensor
    steps: Tensor
    indices: Tensor
    channels: Tensor
    residual: Tensor


def fit_centroids(x: Tensor, stages: int, count: int) -> Centroids:
    """Fits `stages` of `count` centroids to a block of keys or values, `[B, T, H, D]`, by itself for each head.

    D is at most `WIDEST`. Nothing waits for the device, and no shape depends on a number in x.
    """
    tokens = x.shape[1]
    sample = torch.arange(min(tokens, _SAMPLE), device=x.device) * _STRIDE % tokens
    values, steps, indices = list[Tensor](), list[Tensor](), list[Tensor]()
    residual, spread = x.float(), x
    for _ in range(stages):
        step = _step(residual)
        whole = (residual / step).round_()
        sampled = whole[:, sample]
        centroids = _k_means(sampled, count)
        nearest = _nearest(whole, centroids)
        chosen = centroids.gather(1, nearest.unsqueeze(-1).expand(-1, -1, -1, x.shape[-1]))
        spread = (sampled - chosen[:, sample]).abs_().mean(1, keepdim=True).clamp_(min=_LEAST_SPREAD)
        residual = residual - chosen.mul_(step)
        values.append(centroids.to(torch.int8))
        steps.append(step)
        indices.append(nearest)
    channels = spread.to(torch.float8_e4m3fn)
    return Centroids(torch.cat(values, 1), torch.cat(steps, 1), torch.stack(indices, 2), channels, residual)


def _step(x: Tensor) -> Tensor:
    """The distance of whole numbers in x `[B, T, H, D]`, `[B, 1, H, 1]`: a head's largest magnitude becomes 127."""
    largest = x.abs().amax((1, 3), keepdim=True)
    # Divided by a tensor, because PyTorch on a GPU replaces a division by a number with a product by its reciprocal.
    step = largest / torch.full_like(largest, LARGEST)
    return torch.where(step == 0, 1, step)


def _k_means(x: Tensor, count: int) -> Tensor:
    """Centroids `[B, K, H, D]` of whole numbers x `[B, T, H, D]`. The first ones are tokens, evenly spaced."""
    tokens = x.shape[1]
    centroids = x[:, torch.arange(count, device=x.device) * tokens // count]
    options = torch.arange(count, device=x.device)
    for _ in range(_ROUNDS):
        members = (_nearest(x, centroids).unsqueeze(-1) == options).float()
        sums = torch.einsum("bthk,bthd->bkhd", members, x)
        sizes = members.sum(1).transpose(1, 2).unsqueeze(-1)
        centroids = torch.where(sizes > 0, (sums / sizes.clamp(min=1)).round_(), centroids)
    return centroids


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """The index of the centroid next to each token in each head, the first one of equals, `[B, T, H]`."""
    lengths = centroids.square().sum(-1).transpose(1, 2).unsqueeze(1)
    return (lengths - 2 * torch.einsum("bthd,bkhd->bthk", x, centroids)).argmin(-1)
