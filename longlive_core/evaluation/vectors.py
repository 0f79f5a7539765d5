"""Comparison of quantised matrices with recorded NVFP4 tensors, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...kernels import dequantize_nvfp4, quantize_nvfp4, unswizzle_scales
from .recorded import RecordedRun

# Rule names in the files → scale rules: with one scale for each 16 × 16 tile, and for the transposed matrix.
TILED = {"mse2d": "mse", "static6_2d": "static_6"}
TRANSPOSED = {"mse_T": "mse"}


def vector_differences(recorded: RecordedRun) -> Iterator[str]:
    """Yields a message, as in `x.mse.values: 3 of 1024 differ`, for each recorded tensor that is not equal to ours."""
    for name in recorded.tensors:
        if name.endswith(".values"):
            source, rule, _ = name.split(".")
            ours = quantize_with_rule(recorded.tensors[source], rule)
            for part, tensor in ours.items():
                expected = recorded.tensors[f"{source}.{rule}.{part}"]
                if tensor.shape != expected.shape:
                    yield f"{source}.{rule}.{part}: {list(tensor.shape)} instead of {list(expected.shape)}"
                elif not torch.equal(tensor, expected):
                    yield f"{source}.{rule}.{part}: {int((tensor != expected).sum())} of {expected.numel()} differ"


def quantize_with_rule(x: Tensor, rule: str) -> dict[str, Tensor]:
    """The tensors that are recorded for a matrix `[M, K]` and the name of a rule.

    values: codes `[M, K / 2]`. scales_blocked, scales_2d: swizzled and in rows. amax: `[1]`. dequant: `[M, K]`.
    """
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
