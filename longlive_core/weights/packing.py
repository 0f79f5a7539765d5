"""A linear layer in ComfyUI's formats: from floats to the tensors that stand for its weight, and back.

| part | nvfp4 | fp8 |
|---|---|---|
| `weight` | U8 `[N16, K16 / 2]`, even columns in the high nibble | E4M3 or E5M2 `[N, K]` |
| `weight_scale` | E4M3 `[N128, (K16 / 16) to 4]`, swizzled | F32 scalar |
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
from .layer_formats import packed
from .tensor_source import TensorSpec

Parts = dict[str, Tensor]

# Our name of a format -> ComfyUI's.
COMFY_FORMATS = {"nvfp4": "nvfp4", "fp8": "float8_e4m3fn"}
COMFY_FP8_FORMATS = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}

FP8_MAX = 448.0

# Rows that are in float32 at once.
CHUNK_ROWS = 512


def note(settings: Mapping[str, Any]) -> Tensor:
    """ComfyUI's settings of a layer as the bytes of `comfy_quant`."""
    return torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)


def packed_specs(form: str, shape: tuple[int, int]) -> dict[str, TensorSpec]:
    """The parts that `pack` makes of a weight `[N, K]`."""
    specs = {"comfy_quant": TensorSpec("U8", tuple(note({"format": COMFY_FORMATS[form]}).shape))}
    if form == "fp8":
        return {"weight": TensorSpec("F8_E4M3", shape), "weight_scale": TensorSpec("F32", ()), **specs}
    shapes = [want.shape for want in packed("", form, shape).values()]
    dtypes = {"weight": "U8", "weight_scale": "F8_E4M3", "weight_scale_2": "F32"}
    return {**{part: TensorSpec(dtype, s) for (part, dtype), s in zip(dtypes.items(), shapes, strict=True)}, **specs}


def pack(weight: Tensor, form: str, rule: str) -> Parts:
    """A float weight `[N, K]` as the parts of `form`. `rule` chooses the block scales of nvfp4."""
    mark = {"comfy_quant": note({"format": COMFY_FORMATS[form]})}
    if form == "fp8":
        scale = torch.stack(torch.aminmax(weight)).abs().amax().float() / FP8_MAX
        scale = torch.where(scale > 0, scale, 1.0)
        codes = [_e4m3(strip.float() / scale) for strip in weight.split(CHUNK_ROWS)]
        return {"weight": torch.cat(codes), "weight_scale": scale, **mark}
    quantised = quantize_nvfp4(weight, rule, high_first=True)
    shapes = {part: spec.shape for part, spec in packed_specs(form, (weight.shape[0], weight.shape[1])).items()}
    rows, columns = shapes["weight"]
    return {
        "weight": quantised.values[:rows, :columns],
        "weight_scale": quantised.scales.view(shapes["weight_scale"]),
        "weight_scale_2": quantised.amax / quantised.amax.new_full((), quantised.denominator),
        **mark,
    }


def unpack(parts: Mapping[str, Tensor], shape: tuple[int, int]) -> Tensor:
    """The weight `[N, K]` in float32 that `parts` stand for, of either format."""
    if parts["weight"].dtype == torch.uint8:
        floats = dequantize_nvfp4(as_nvfp4(parts), shape, torch.float32, high_first=True)
    else:
        floats = parts["weight"].float().mul_(parts["weight_scale"])
    # ComfyUI multiplies the layer's input with it instead, which is the same as the weight's columns.
    return floats * parts["pre_quant_scale"].float() if "pre_quant_scale" in parts else floats


def as_nvfp4(parts: Mapping[str, Tensor]) -> NVFP4:
    """The parts of an nvfp4 layer, high nibble first; the file's one factor is amax / denominator."""
    scales = parts["weight_scale"].view(torch.float8_e4m3fn).flatten()
    return NVFP4(parts["weight"], scales, parts["weight_scale_2"].float().reshape(()), 1.0)


def _e4m3(x: Tensor) -> Tensor:
    return x.clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
