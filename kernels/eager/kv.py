"""Quantised slots of the KV cache of one layer: blocks of tokens are quantised into slots and dequantised from them.

Scales are in row order, not in the 128x4 layout of the tensor cores; even columns of a matrix are in the low nibble.
Both functions write in place and never wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..nvfp4_format import BLOCK, NVFP4, denominator_of
from .nvfp4 import amax_of, dequantize_nvfp4, quantize_with_amax


def append_nvfp4(
    x: Tensor,
    values: Tensor,
    scales: Tensor,
    amax: Tensor,
    slot: int,
    rule: str = "mse",
    least: Tensor | None = None,
) -> None:
    """Quantises a block of tokens into a slot. Each batch element is one matrix `[T · H, D]` with its own amax.

    x `[B, T, H, D]`: T tokens of a block, H heads, D a multiple of 16. S slots: values `[B, S, T · H · D / 2]` uint8,
    scales `[B, S, T · H · D / 16]` float8_e4m3fn, amax `[B, S]` float32. Other slots do not change. rule: how scales
    are chosen, see `RULES`. least: float32 `[B]`, the amax of the whole matrices of which x is a part. Raises
    ValueError for an unknown rule.
    """
    for element, matrix in enumerate(x.flatten(1, 2)):
        largest = amax_of(matrix) if least is None else torch.maximum(amax_of(matrix), least[element])
        packed = quantize_with_amax(matrix, largest, rule, swizzled=False)
        values[element, slot] = packed.values.view(-1)
        scales[element, slot] = packed.scales.view(-1)
        amax[element, slot] = packed.amax


def read_nvfp4(
    values: Tensor,
    scales: Tensor,
    amax: Tensor,
    rule: str,
    slots: Sequence[int],
    out: Tensor,
    mean: Tensor | None = None,
) -> None:
    """Dequantises `slots` into their places in `out`, rounding to the dtype of `out`. Other tokens stay.

    values, scales, amax: as in `append_nvfp4`. rule: the one that the slots were written with. out: `[B, S · T, H, D]`,
    where slot s holds tokens s · T to (s + 1) · T − 1. mean: float32 `[B, S, 1, H, D]`, added to every token of a slot
    after the first rounding, and the sum is rounded again. Raises ValueError for an unknown rule.
    """
    denominator = denominator_of(rule)
    channels = out.shape[-1]
    for element, blocks in enumerate(out.unflatten(1, (values.shape[1], -1))):
        for slot in slots:
            packed = NVFP4(
                values[element, slot].view(-1, channels // 2),
                scales[element, slot].view(-1, channels // BLOCK),
                amax[element, slot],
                denominator,
            )
            matrix = blocks[slot].view(-1, channels)
            dequantize_nvfp4(packed, (len(matrix), channels), out.dtype, swizzled=False, out=matrix)
            if mean is not None:
                blocks[slot].add_(mean[element, slot])


def read_fp8(values: Tensor, scales: Tensor, slots: Sequence[int], out: Tensor) -> None:
    """Multiplies the E4M3 numbers of `slots` with their scales, into their places in `out`, rounding once.

    values `[B, S, T, H, D]` float8_e4m3fn, scales `[B, S, T, H, 1]` float32. out: as in `read_nvfp4`.
    """
    tokens = out.unflatten(1, (values.shape[1], -1))
    for slot in slots:
        tokens[:, slot].copy_(values[:, slot]).mul_(scales[:, slot])
