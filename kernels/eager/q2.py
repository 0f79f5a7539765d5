"""The 2-bit residuals of the q2 format, and its slots of the KV cache. See `q2_format`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..q2_format import CANDIDATES, E4M3_MAX, group_of, unpack_indices


def quantize_q2(x: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises residuals in units of their channels' spread to 2 bits, with one scale for each group of channels.

    x: float32 `[B, T, H, D]`, D a multiple of 16. spread: float32 `[B, 1, H, D]`, above zero. Returns codes, uint8
    `[B, T, H, D/4]`, the first channel in the lowest bits (bit 0: ± 1½ instead of ± ½ scales, bit 1: negative), and
    scales, float8_e4m3fn `[B, T, H, D/32]`, or D/16 by `group_of`.
    """
    groups = (x / spread).unflatten(-1, (-1, group_of(x.shape[-1])))
    magnitudes = groups.abs()
    largest = magnitudes.amax(-1, keepdim=True)
    scales = outer = least = None
    for factor in CANDIDATES:
        scale = (largest * factor).clamp(max=E4M3_MAX).to(torch.float8_e4m3fn)
        beyond = magnitudes > scale.float()
        error = (magnitudes - (beyond.float() + 0.5) * scale.float()).square().sum(-1, keepdim=True)
        if scales is None or outer is None or least is None:
            scales, outer, least = scale.float(), beyond, error
        else:
            better = error < least
            scales, outer = torch.where(better, scale.float(), scales), torch.where(better, beyond, outer)
            least = torch.where(better, error, least)
    assert scales is not None and outer is not None
    codes = (outer + 2 * (groups < 0).to(torch.uint8)).to(torch.uint8).flatten(-2).unflatten(-1, (-1, 4))
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=x.device)
    return (codes << shifts).sum(-1, dtype=torch.uint8), scales.squeeze(-1).to(torch.float8_e4m3fn)


def read_q2(
    codes: Tensor,
    scales: Tensor,
    indices: Tensor,
    centroids: Tensor,
    channels: Tensor,
    steps: Tensor,
    slots: Sequence[int],
    out: Tensor,
) -> None:
    """Dequantises `slots` into their places in `out`, `[B, S · T, H, D]`, in float32 and rounding once.

    S slots, N stages of K centroids each: codes uint8 `[B, S, T, H, D/4]` and scales float8_e4m3fn as `quantize_q2`
    gives them, indices uint8 `[B, S, …, H, 1]` as `pack_indices` does, centroids int8 `[B, S, N · K, H, D]` in units of
    steps float32 `[B, S, N, H, 1]`, channels float8_e4m3fn `[B, S, 1, H, D]`, the spread in units of the last step.
    Other tokens stay.
    """
    tokens, stages = codes.shape[2], steps.shape[2]
    count = centroids.shape[2] // stages
    levels = _levels(codes.device)
    for slot in slots:
        residuals = F.embedding(codes[:, slot].int(), levels).flatten(-2)
        groups = residuals.unflatten(-1, (scales.shape[-1], -1)).mul_(scales[:, slot].float().unsqueeze(-1))
        step = steps[:, slot]
        residuals = groups.flatten(-2).mul_(channels[:, slot].float() * step[:, -1:])
        chosen = unpack_indices(indices[:, slot], tokens, stages, count)
        values = (centroids[:, slot].float().unflatten(1, (stages, count)) * step.unsqueeze(2)).unbind(1)
        base = _gather(values[0], chosen[:, :, 0])
        for stage in range(1, stages):
            base = base + _gather(values[stage], chosen[:, :, stage])
        out[:, slot * tokens : (slot + 1) * tokens] = residuals + base


def _gather(values: Tensor, chosen: Tensor) -> Tensor:
    """Rows of values `[B, K, H, D]` by their index in each head, `[B, T, H]`."""
    return values.gather(1, chosen.unsqueeze(-1).expand(-1, -1, -1, values.shape[-1]))


def _levels(device: torch.device) -> Tensor:
    """The four numbers in each byte of codes, float32 `[256, 4]`, in units of the scale."""
    byte = torch.arange(256, device=device)
    codes = torch.stack([byte >> shift & 3 for shift in range(0, 8, 2)], dim=1)
    return (0.5 + (codes & 1)) * (1 - (codes & 2))
