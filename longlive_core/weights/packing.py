"""Packs the weight of a linear layer into ComfyUI's formats, and unpacks it.

| part | nvfp4 | fp8 |
|---|---|---|
| `weight` | U8 `[N16, K16 / 2]`, even columns in the high nibble | E4M3 or E5M2 `[N, K]` |
| `weight_scale` | E4M3 `[N128, K16 / 16 padded to a multiple of 4]`, swizzled | F32 scalar |
| `weight_scale_2` | F32 scalar | |
| `comfy_quant` | JSON with the `format` | JSON with the `format` |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...kernels import NVFP4, dequantize_nvfp4, quantize_nvfp4
from .layer_formats import packed_requirements
from .tensor_source import TensorSpec

Parts = dict[str, Tensor]

# Our name of a format -> ComfyUI's, and safetensors' name of an fp8 dtype -> ComfyUI's.
COMFY_FORMATS = {"nvfp4": "nvfp4", "fp8": "float8_e4m3fn"}
COMFY_FP8_FORMATS = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}

# Parts of an nvfp4 weight -> safetensors' names of the dtypes that `pack` writes.
NVFP4_DTYPES = {"weight": "U8", "weight_scale": "F8_E4M3", "weight_scale_2": "F32"}

FP8_MAX = 448.0

# Rows that are in float32 at once.
CHUNK_ROWS = 512


def encode_settings(settings: Mapping[str, Any]) -> Tensor:
    """Encodes ComfyUI's settings of a layer as the bytes of its `comfy_quant` tensor."""
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)


def packed_specs(quant_format: str, shape: tuple[int, ...]) -> dict[str, TensorSpec]:
    """Returns the parts that `pack` makes of a weight `[N, K]`."""
    settings = {"comfy_quant": TensorSpec("U8", tuple(_settings(quant_format).shape))}
    if quant_format == "fp8":
        return {"weight": TensorSpec("F8_E4M3", shape), "weight_scale": TensorSpec("F32", ()), **settings}
    required = packed_requirements("", quant_format, shape)
    return {part: TensorSpec(dtype, required[f".{part}"].shape) for part, dtype in NVFP4_DTYPES.items()} | settings


def pack(weight: Tensor, quant_format: str, rule: str) -> Parts:
    """Quantises a float weight `[N, K]` to the parts of `quant_format`. `rule` chooses the block scales of nvfp4."""
    settings = {"comfy_quant": _settings(quant_format)}
    if quant_format == "fp8":
        scale = torch.stack(torch.aminmax(weight)).abs().amax().float() / FP8_MAX
        scale = torch.where(scale > 0, scale, 1.0)
        chunks = ((rows.float() / scale).clamp_(-FP8_MAX, FP8_MAX) for rows in weight.split(CHUNK_ROWS))
        codes = torch.cat([chunk.to(torch.float8_e4m3fn) for chunk in chunks])
        return {"weight": codes, "weight_scale": scale, **settings}
    quantized = quantize_nvfp4(weight, rule, high_first=True)
    shapes = {part: spec.shape for part, spec in packed_specs(quant_format, (weight.shape[0], weight.shape[1])).items()}
    rows, columns = shapes["weight"]
    return {
        "weight": quantized.values[:rows, :columns],
        "weight_scale": quantized.scales.view(shapes["weight_scale"]),
        "weight_scale_2": quantized.amax / quantized.amax.new_full((), quantized.denominator),
        **settings,
    }


def unpack(parts: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """Dequantises the parts of either format to a weight `[N, K]` in float32."""
    if parts["weight"].dtype == torch.uint8:
        weight = dequantize_nvfp4(as_nvfp4(parts), shape, torch.float32, high_first=True)
    else:
        weight = parts["weight"].float().mul_(parts["weight_scale"].float().reshape(-1, 1))  # one, or one for each row
    # ComfyUI multiplies the input of the layer by this scale, which equals scaling the columns of the weight.
    return weight * parts["pre_quant_scale"].float() if "pre_quant_scale" in parts else weight


def as_nvfp4(parts: Mapping[str, Tensor]) -> NVFP4:
    """Makes an NVFP4 of the parts of an nvfp4 layer: high nibble first; `weight_scale_2` is amax, denominator 1."""
    scales = parts["weight_scale"].view(torch.float8_e4m3fn).flatten()
    return NVFP4(parts["weight"], scales, parts["weight_scale_2"].float().reshape(()), 1.0)


def _settings(quant_format: str) -> Tensor:
    return encode_settings({"format": COMFY_FORMATS[quant_format]})
