"""Reads how each linear layer of a checkpoint is quantised, and which tensors it must have in ComfyUI's formats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import torch

from .names import strip_prefixes, summarize_names
from .tensor_source import QUANTISED, CheckpointError, TensorSource, TensorSpec

FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
FP8_DTYPES = frozenset({"F8_E4M3", "F8_E5M2"})

# ComfyUI's name of a format -> ours.
FORMATS = {"nvfp4": "nvfp4", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8"}

# Tensors that a quantised layer may have beside its weight, in ComfyUI's layout of today and in the older one, which
# marks the whole file with a tensor `scaled_fp8`.
COMPANIONS = ("weight_scale", "weight_scale_2", "comfy_quant", "input_scale", "pre_quant_scale")
LEGACY_COMPANIONS = ("scale_weight", "scale_input")
LEGACY_MARKER = "scaled_fp8"


@dataclass(frozen=True, slots=True)
class TensorRequirement:
    """The shape that a tensor must have and the dtypes that it may have, by safetensors' names.

    A scalar may have the shape [] or [1].
    """

    shape: tuple[int, ...]
    dtypes: frozenset[str] = FLOAT_DTYPES

    def wrong_shape(self, spec: TensorSpec) -> str | None:
        """Describes how the shape differs from the requirement; None if it does not."""
        scalar = prod(self.shape) == prod(spec.shape) == 1
        return None if scalar or spec.shape == self.shape else f"{list(spec.shape)} instead of {list(self.shape)}"

    def wrong_dtype(self, spec: TensorSpec) -> str | None:
        """Describes how the dtype differs from the requirement; None if it does not."""
        return None if spec.dtype in self.dtypes else f"{spec.dtype} instead of {' or '.join(sorted(self.dtypes))}"


def quantized_layers(source: TensorSource, names: Mapping[str, str]) -> dict[str, str]:
    """Returns each quantised layer -> `nvfp4` or `fp8`.

    names: Wan's name of each tensor -> its name in the file. Raises CheckpointError for unsupported formats.
    """
    comfy_formats = {layer: str(settings.get("format")) for layer, settings in layer_settings(source, names).items()}
    unsupported = [f"{layer} ({name})" for layer, name in comfy_formats.items() if name not in FORMATS]
    if unsupported:
        raise CheckpointError(
            f"checkpoint {source.path} has layers in unsupported formats: {summarize_names(unsupported)}; "
            f"supported are {', '.join(FORMATS)}, and floats"
        )
    weights = [name for name in names if name.endswith(".weight")]
    fp8 = [name.removesuffix(".weight") for name in weights if source.specs[names[name]].dtype in FP8_DTYPES]
    return {**dict.fromkeys(fp8, "fp8"), **{layer: FORMATS[name] for layer, name in comfy_formats.items()}}


def layer_settings(source: TensorSource, names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns each layer that has ComfyUI's quantisation settings -> these settings, `format` among them.

    The file has them in the metadata `_quantization_metadata`, in `.comfy_quant` tensors (a few bytes each, which are
    read), or as the tensor `scaled_fp8`. Layers in fp8 without a scale may have no settings.
    names: Wan's name of each tensor -> its name in the file.
    """
    settings = {
        layer: cast("dict[str, Any]", value if isinstance(value, dict) else {"format": value})
        for layer, value in _metadata_layers(source).items()
    }
    markers = {wan.removesuffix(".comfy_quant"): name for wan, name in names.items() if wan.endswith(".comfy_quant")}
    tensors = source.read(markers.values()) if markers else {}
    texts = {layer: bytes(tensors[name].flatten().to(torch.uint8).tolist()) for layer, name in markers.items()}
    settings |= {layer: _parse_json(source, text) for layer, text in texts.items()}
    if LEGACY_MARKER in names:
        # The older layout asks for products in full precision with a marker of two elements.
        exact = prod(source.specs[names[LEGACY_MARKER]].shape) == 2
        legacy = {"format": "float8_e4m3fn", **({"full_precision_matrix_mult": True} if exact else {})}
        settings |= {n.removesuffix(".scale_weight"): {**legacy} for n in names if n.endswith(".scale_weight")}
    return settings


def packed_requirements(layer: str, quant_format: str, shape: tuple[int, ...]) -> dict[str, TensorRequirement]:
    """Returns the tensors that a linear layer of shape [N, K] must have in `quant_format` instead of its float weight.

    nvfp4: weight `[N16, K16 / 2]`, two values a byte, N and K padded to multiples of 16; block scales in cuBLAS's
    swizzled layout, `[N128, K16 / 16 padded to a multiple of 4]`; one scale of the whole tensor. fp8: weight `[N, K]`.
    """
    rows, columns = shape
    if quant_format == "fp8":
        return {f"{layer}.weight": TensorRequirement((rows, columns), FP8_DTYPES)}
    columns = _round_up(columns, 16)
    scales = _round_up(rows, 128), _round_up(columns // 16, 4)
    return {
        f"{layer}.weight": TensorRequirement((_round_up(rows, 16), columns // 2), frozenset({"U8"})),
        f"{layer}.weight_scale": TensorRequirement(scales, frozenset({"F8_E4M3", "U8"})),
        f"{layer}.weight_scale_2": TensorRequirement((), frozenset({"F32"})),
    }


def companion_names(source: TensorSource, names: Mapping[str, str], layers: Mapping[str, str]) -> set[str]:
    """Returns the names of the tensors that quantised layers may have beside their weights.

    Parts of nvfp4 layers without a quantisation marker are excluded: the format of such a layer is not known. The scale
    of an fp8 weight needs no marker, since it can mean only one thing.
    """
    legacy = LEGACY_MARKER in names
    in_metadata = _metadata_layers(source)
    marked = [
        layer
        for layer, quant_format in layers.items()
        if legacy or quant_format == "fp8" or layer in in_metadata or f"{layer}.comfy_quant" in names
    ]
    parts = (*COMPANIONS, *LEGACY_COMPANIONS) if legacy else COMPANIONS
    return ({f"{layer}.{part}" for layer in marked for part in parts} | {LEGACY_MARKER}) & names.keys()


def unpacked_shapes(specs: Mapping[str, TensorSpec], formats: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all tensors, with nvfp4 weights twice as wide as packed: two values are in one byte."""
    packed = {f"{layer}.weight" for layer, quant_format in formats.items() if quant_format == "nvfp4"}
    return {n: (*s.shape[:-1], 2 * s.shape[-1]) if n in packed and s.shape else s.shape for n, s in specs.items()}


def _metadata_layers(source: TensorSource) -> dict[str, object]:
    """Returns Wan's name of each layer in the metadata `_quantization_metadata` -> its format or settings."""
    layers = _parse_json(source, source.metadata.get(QUANTISED, "{}")).get("layers", {})
    named = cast("dict[str, object]", layers) if isinstance(layers, dict) else {}
    return {strip_prefixes(f"{layer}.")[:-1]: value for layer, value in named.items()}


def _parse_json(source: TensorSource, text: str | bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {source.path} has damaged quantisation settings ({error}); copy it again"
        ) from error
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
