"""Quantised layers in ComfyUI's formats: which linear layer is packed how, and what must stand beside its weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch

from .names import strip_prefixes, summarize_names
from .tensor_source import CheckpointError, TensorSource, TensorSpec

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
FP8 = frozenset({"F8_E4M3", "F8_E5M2"})

# ComfyUI's name of a format -> ours.
FORMATS = {"nvfp4": "nvfp4", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8"}

# What may stand beside a quantised weight, in today's layout and in the old one of `scaled_fp8`.
COMPANIONS = ("weight_scale", "weight_scale_2", "comfy_quant", "input_scale", "pre_quant_scale")
LEGACY_COMPANIONS = ("scale_weight", "scale_input")
LEGACY_MARKER = "scaled_fp8"


@dataclass(frozen=True, slots=True)
class TensorRequirement:
    """The shape a tensor must have and the dtypes it may have, in safetensors' words; a scalar may be [] or [1]."""

    shape: tuple[int, ...]
    dtypes: frozenset[str] = FLOATS

    def fault(self, spec: TensorSpec) -> str | None:
        """What `spec` is instead, None if it fits."""
        scalar = prod(self.shape) == prod(spec.shape) == 1
        shape = None if scalar or spec.shape == self.shape else f"{list(spec.shape)} instead of {list(self.shape)}"
        dtype = None if spec.dtype in self.dtypes else f"{spec.dtype} instead of {' or '.join(sorted(self.dtypes))}"
        return ", ".join(fault for fault in (dtype, shape) if fault is not None) or None


def quantized_layers(source: TensorSource, names: Mapping[str, str]) -> dict[str, str]:
    """Linear layer -> `nvfp4` or `fp8`, by what the file says of it; `names` is Wan's name -> the file's name.

    Raises CheckpointError for formats that are not supported.
    """
    words = {layer: str(note.get("format")) for layer, note in layer_settings(source, names).items()}
    strange = [f"{layer} ({word})" for layer, word in words.items() if word not in FORMATS]
    if strange:
        raise CheckpointError(
            f"checkpoint {source.path} has layers in formats that LongLive does not take: {summarize_names(strange)}; "
            f"it takes {', '.join(FORMATS)}, and plain floats"
        )
    plain = [n.removesuffix(".weight") for n in names if n.endswith(".weight") and source.specs[names[n]].dtype in FP8]
    return {**dict.fromkeys(plain, "fp8"), **{layer: FORMATS[word] for layer, word in words.items()}}


def layer_settings(source: TensorSource, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Layer -> ComfyUI's settings of it, with the `format` among them; `names` is Wan's name -> the file's name.

    The file says it in `_quantization_metadata`, in `.comfy_quant` tensors (a few bytes each, which are read), or with
    the `scaled_fp8` mark; plain fp8 weights need no word and have none here.
    """
    notes = {strip_prefixes(f"{layer}.")[:-1]: _note(conf) for layer, conf in _metadata(source).items()}
    marks = {wan.removesuffix(".comfy_quant"): name for wan, name in names.items() if wan.endswith(".comfy_quant")}
    read = source.read(marks.values()) if marks else {}
    notes |= {
        layer: _json(source, bytes(read[name].flatten().to(torch.uint8).tolist())) for layer, name in marks.items()
    }
    if LEGACY_MARKER in names:
        exact = (
            prod(source.specs[names[LEGACY_MARKER]].shape) == 2
        )  # how the old layout asks for products in full precision
        note = {"format": "float8_e4m3fn", **({"full_precision_matrix_mult": True} if exact else {})}
        notes |= {n.removesuffix(".scale_weight"): {**note} for n in names if n.endswith(".scale_weight")}
    return notes


def packed(layer: str, form: str, shape: tuple[int, ...]) -> dict[str, TensorRequirement]:
    """The tensors that a linear layer `[N, K]` must have in the format `form` in place of its float weight.

    nvfp4: weight `[N16, K16 / 2]`, two values a byte, rows and columns padded to 16; block scales in the swizzled
    layout of cuBLAS, `[N128, (K16 / 16) to 4]`; one scale of the whole tensor. fp8: weight `[N, K]`.
    """
    rows, columns = shape
    if form == "fp8":
        return {f"{layer}.weight": TensorRequirement((rows, columns), FP8)}
    columns = _up(columns, 16)
    return {
        f"{layer}.weight": TensorRequirement((_up(rows, 16), columns // 2), frozenset({"U8"})),
        f"{layer}.weight_scale": TensorRequirement(
            (_up(rows, 128), _up(columns // 16, 4)), frozenset({"F8_E4M3", "U8"})
        ),
        f"{layer}.weight_scale_2": TensorRequirement((), frozenset({"F32"})),
    }


def companion_names(source: TensorSource, names: Mapping[str, str], layers: Mapping[str, str]) -> set[str]:
    """The names in the file that may stand beside quantised weights; scales that nothing explains are not among them.

    ComfyUI ignores the scales of a layer that no mark names, so the model would load and be wrong.
    """
    read_settings = {strip_prefixes(f"{layer}.")[:-1] for layer in _metadata(source)}
    beside = [*COMPANIONS]
    if LEGACY_MARKER in names:
        beside += LEGACY_COMPANIONS
    marked = {n for n in layers if LEGACY_MARKER in names or n in read_settings or f"{n}.comfy_quant" in names}
    return {f"{layer}.{part}" for layer in marked for part in beside} & names.keys() | ({LEGACY_MARKER} & names.keys())


def unpacked(specs: Mapping[str, TensorSpec], layers: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors, with the inner width of nvfp4 weights as it is when unpacked."""
    packs = {f"{layer}.weight" for layer, form in layers.items() if form == "nvfp4"}
    return {n: (*s.shape[:-1], 2 * s.shape[-1]) if n in packs and s.shape else s.shape for n, s in specs.items()}


def _metadata(source: TensorSource) -> dict[str, object]:
    content = _json(source, source.metadata.get("_quantization_metadata", "{}"))
    layers = content.get("layers", {})
    return cast("dict[str, object]", layers) if isinstance(layers, dict) else {}


def _json(source: TensorSource, text: str | bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {source.path} has a damaged note on its formats ({error}); copy it again"
        ) from error
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _note(conf: object) -> dict[str, Any]:
    return cast("dict[str, Any]", conf) if isinstance(conf, dict) else {"format": conf}


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
