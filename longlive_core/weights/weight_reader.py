"""Reads the weights of a checkpoint of any format one at a time, dequantised, with a LoRA merged on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import Checkpoint, inspect_checkpoint
from .layer_formats import COMPANIONS, layer_settings
from .lora import Lora, read_lora
from .names import summarize_names
from .packing import COMFY_FP8_FORMATS, Parts, encode_settings, unpack
from .tensor_source import CheckpointError, TensorSpec

# Names of a layer's parts in the layout of `scaled_fp8` -> names in ComfyUI's layout of today.
LEGACY_PARTS = {"scale_weight": "weight_scale", "scale_input": "input_scale"}


@dataclass(frozen=True, slots=True)
class WeightReader:
    """Reads the tensors of a checked file by Wan's names.

    shapes: tensor of the model -> its unpacked shape, in the model's order.
    part_names: quantised layer -> part, by ComfyUI's name of today -> Wan's name of the tensor.
    comfy_quant: quantised layer -> the bytes of its `comfy_quant` tensor.
    lora, strength: the LoRA that `read_float` merges, if any.
    """

    checkpoint: Checkpoint
    shapes: Mapping[str, tuple[int, ...]]
    part_names: Mapping[str, Mapping[str, str]]
    comfy_quant: Mapping[str, Tensor]
    lora: Lora | None
    strength: float

    def read_float(self, name: str) -> Tensor:
        """Reads a tensor of the model; in float32 if it was quantised or the LoRA changes it, else in its dtype."""
        layer = name.removesuffix(".weight") if name.endswith(".weight") else ""
        if layer in self.part_names:
            rows, columns = self.shapes[name]
            tensor = unpack(self.read_parts(layer), (rows, columns))
        else:
            tensor = self._read(name)
        if self.lora is None or layer not in self.lora.layers:
            return tensor
        exact = torch.promote_types(tensor.dtype, torch.float32)
        return self.lora.layers[layer].merged(tensor.to(exact), self.strength)

    def read_parts(self, layer: str) -> Parts:
        """Reads the parts of a quantised layer in ComfyUI's layout of today."""
        parts = {part: self._read(name) for part, name in self.part_names[layer].items()}
        if self.checkpoint.quantized[layer] == "nvfp4":
            parts["weight_scale"] = parts["weight_scale"].view(torch.float8_e4m3fn)
        parts = {"weight_scale": torch.ones(()), **parts}  # fp8 may come without a scale
        scalar = self._scalar_part(layer)
        return {**parts, scalar: parts[scalar].float().reshape(()), "comfy_quant": self.comfy_quant[layer]}

    def part_specs(self, layer: str) -> dict[str, TensorSpec]:
        """Returns the specs of the parts that `read_parts` returns."""
        specs = {part: self._spec(name) for part, name in self.part_names[layer].items()}
        if self.checkpoint.quantized[layer] == "nvfp4":
            specs["weight_scale"] = TensorSpec("F8_E4M3", specs["weight_scale"].shape)
        settings = TensorSpec("U8", tuple(self.comfy_quant[layer].shape))
        return {**specs, self._scalar_part(layer): TensorSpec("F32", ()), "comfy_quant": settings}

    def _scalar_part(self, layer: str) -> str:
        return "weight_scale" if self.checkpoint.quantized[layer] == "fp8" else "weight_scale_2"

    def _spec(self, name: str) -> TensorSpec:
        return self.checkpoint.source.specs[self.checkpoint.names[name]]

    def _read(self, name: str) -> Tensor:
        file_name = self.checkpoint.names[name]
        return self.checkpoint.source.read([file_name])[file_name]


def open_weights(path: Path | str, *, lora: Path | str | None = None, strength: float = 1.0) -> WeightReader:
    """Checks a checkpoint of any format, FourOverSix included, and a LoRA for it; reads no weight.

    Raises FileNotFoundError, or CheckpointError as `inspect_checkpoint` and `read_lora` do, for a LoRA that does not
    fit the model, and for fp8 layers with more than one scale.
    """
    checkpoint = inspect_checkpoint(path)
    settings = layer_settings(checkpoint.source, checkpoint.names)
    comfy_quant: dict[str, Tensor] = {}
    for layer, format_ in checkpoint.quantized.items():
        dtype = checkpoint.source.specs[checkpoint.names[f"{layer}.weight"]].dtype
        comfy_format = {"format": COMFY_FP8_FORMATS[dtype]} if format_ == "fp8" else {}
        comfy_quant[layer] = encode_settings({**settings.get(layer, {}), **comfy_format})
    merged = None if lora is None else read_lora(lora)
    if merged is not None:
        merged.coverage(checkpoint.linears)  # raises an error for a LoRA that does not fit
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.skeleton.state_dict().items()}
    part_names = {layer: _part_names(checkpoint, layer) for layer in checkpoint.quantized}
    reader = WeightReader(checkpoint, shapes, part_names, comfy_quant, merged, strength)
    _check_scales(reader)
    return reader


def _part_names(checkpoint: Checkpoint, layer: str) -> dict[str, str]:
    """Returns each part that the file has of a layer -> Wan's name of its tensor."""
    parts = {"weight": "weight", **LEGACY_PARTS, **{part: part for part in COMPANIONS if part != "comfy_quant"}}
    return {part: f"{layer}.{name}" for name, part in parts.items() if f"{layer}.{name}" in checkpoint.names}


def _check_scales(reader: WeightReader) -> None:
    checkpoint = reader.checkpoint
    shapes = {
        layer: checkpoint.source.specs[checkpoint.names[names["weight_scale"]]].shape
        for layer, names in reader.part_names.items()
        if "weight_scale" in names and checkpoint.quantized[layer] == "fp8"
    }
    unsupported = [f"{layer} {list(shape)}" for layer, shape in shapes.items() if prod(shape) != 1]
    if unsupported:
        raise CheckpointError(
            f"checkpoint {checkpoint.source.path} has fp8 layers with more than one scale each: "
            f"{summarize_names(unsupported)}; use the bf16 checkpoint"
        )
