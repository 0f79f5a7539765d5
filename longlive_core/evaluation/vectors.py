"""Bit-for-bit comparison with recorded NVFP4 vectors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...kernels import dequantize_nvfp4, quantize_nvfp4, unswizzle_scales
from .recorded import Recorded

# Recorded rule names that use one scale per 16 x 16 tile, or that quantise the transposed matrix.
TILED = {"mse2d": "mse", "static6_2d": "static_6"}
TRANSPOSED = {"mse_T": "mse"}


def differing_vectors(case: Recorded) -> Iterator[str]:
    """Describe every recorded tensor that differs from ours, such as `x.mse.values: 3 of 1024 differ`."""
    for stem in (name.removesuffix(".values") for name in case.tensors if name.endswith(".values")):
        source, rule = stem.split(".")
        for part, tensor in quantised(case.tensors[source], rule).items():
            recorded = case.tensors[f"{stem}.{part}"]
            if tensor.shape != recorded.shape:
                yield f"{stem}.{part}: {list(tensor.shape)} instead of {list(recorded.shape)}"
            elif not torch.equal(tensor, recorded):
                yield f"{stem}.{part}: {int((tensor != recorded).sum())} of {recorded.numel()} differ"


def quantised(x: Tensor, rule: str) -> dict[str, Tensor]:
    """Quantise a matrix `[rows, columns]` by a recorded rule and return every recorded part by name."""
    x = x.t() if rule in TRANSPOSED else x
    packed = quantize_nvfp4(x, (TILED | TRANSPOSED).get(rule, rule), tile=rule in TILED)
    rows, half = packed.values.shape
    flat = packed.scales.flatten()
    return {
        "values": packed.values,
        "scales_blocked": flat.view(torch.uint8),
        "scales_2d": unswizzle_scales(flat, rows, half // 8).view(torch.uint8),
        "amax": packed.amax.reshape(1),
        "dequant": dequantize_nvfp4(packed, (x.shape[0], x.shape[1]), torch.float32),
    }
