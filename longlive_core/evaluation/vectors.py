"""Recorded NVFP4 vectors, compared bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...kernels import dequantize_nvfp4, quantize_nvfp4, unswizzle_scales
from .recorded import Recorded

# Names in the files for a rule with 16 x 16 scales, and for one that quantises the transpose.
TILED = {"mse2d": "mse", "static6_2d": "static_6"}
TRANSPOSED = {"mse_T": "mse"}


def differing_vectors(case: Recorded) -> Iterator[str]:
    """`x.mse.values: 3 of 1024 differ` for every recorded tensor that ours is not equal to; nothing if all are."""
    for name in case.tensors:
        if name.endswith(".values"):
            source, rule, _ = name.split(".")
            made = quantised(case.tensors[source], rule)
            for part, tensor in made.items():
                want = case.tensors[f"{source}.{rule}.{part}"]
                if tensor.shape != want.shape:
                    yield f"{source}.{rule}.{part}: {list(tensor.shape)} instead of {list(want.shape)}"
                elif not torch.equal(tensor, want):
                    yield f"{source}.{rule}.{part}: {int((tensor != want).sum())} of {want.numel()} differ"


def quantised(x: Tensor, rule: str) -> dict[str, Tensor]:
    """Everything that is recorded of one matrix under the name of one rule."""
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
