"""Reads the weights of a checkpoint of any format one at a time, dequantised, with LoRAs merged on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import Checkpoint, inspect_checkpoint
from .layer_formats import COMPANIONS, layer_settings
from .lora import Lora
from .lora_file import LoraFile, check_not_merged
from .lora_reader import read_lora
from .metadata import merged_loras
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
    loras: the LoRAs that `read_float` merges, each with its strength.
    """

    checkpoint: Checkpoint
    shapes: Mapping[str, tuple[int, ...]]
    part_names: Mapping[str, Mapping[str, str]]
    comfy_quant: Mapping[str, Tensor]
    loras: Sequence[tuple[Lora, float]]

    def read_float(self, name: str) -> Tensor:
        """Reads a tensor of the model; in float32 if it was quantised or a LoRA changes it, else in its dtype."""
        layer = name.removesuffix(".weight") if name.endswith(".weight") else ""
        if layer in self.part_names:
            rows, columns = self.shapes[name]
            tensor = unpack(self.read_parts(layer), (rows, columns))
        else:
            tensor = self._read(name)
        if not any(layer in lora.layers or name in lora.diffs for lora, _ in self.loras):
            return tensor
        weight = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        total = weight.clone()
        for lora, strength in self.loras:
            if layer in lora.layers:
                total += strength * lora.layers[layer].change(weight)
            if name in lora.diffs:
                total += strength * lora.diffs[name].to(weight)
        return total

    def has_row_scales(self, layer: str) -> bool:
        """Whether a quantised layer is fp8 with a scale for each row, which ComfyUI does not read."""
        name = self.part_names[layer].get("weight_scale") if self.checkpoint.quantized[layer] == "fp8" else None
        source, names = self.checkpoint.source, self.checkpoint.names
        return name is not None and prod(source.specs[names[name]].shape) != 1

    def read_parts(self, layer: str) -> Parts:
        """Reads the parts of a quantised layer in ComfyUI's layout of today."""
        parts = {part: self._read(name) for part, name in self.part_names[layer].items()}
        if self.checkpoint.quantized[layer] == "nvfp4":
            parts["weight_scale"] = parts["weight_scale"].view(torch.float8_e4m3fn)
        parts = {"weight_scale": torch.ones(()), **parts}  # fp8 may come without a scale
        scalar = self._scalar_part(layer)
        if not self.has_row_scales(layer):
            parts[scalar] = parts[scalar].float().reshape(())
        return {**parts, "comfy_quant": self.comfy_quant[layer]}

    def part_specs(self, layer: str) -> dict[str, TensorSpec]:
        """Returns the specs of the parts that `read_parts` returns."""
        source, names = self.checkpoint.source, self.checkpoint.names
        specs = {part: source.specs[names[name]] for part, name in self.part_names[layer].items()}
        if self.checkpoint.quantized[layer] == "nvfp4":
            specs["weight_scale"] = TensorSpec("F8_E4M3", specs["weight_scale"].shape)
        settings = TensorSpec("U8", tuple(self.comfy_quant[layer].shape))
        return {**specs, self._scalar_part(layer): TensorSpec("F32", ()), "comfy_quant": settings}

    def _scalar_part(self, layer: str) -> str:
        return "weight_scale" if self.checkpoint.quantized[layer] == "fp8" else "weight_scale_2"

    def _read(self, name: str) -> Tensor:
        file_name = self.checkpoint.names[name]
        return self.checkpoint.source.read([file_name])[file_name]


def open_weights(path: Path | str, *, loras: Sequence[LoraFile] = ()) -> WeightReader:
    """Checks a checkpoint of any format, FourOverSix included, and LoRAs for it; reads no weight.

    Raises FileNotFoundError, or CheckpointError as `inspect_checkpoint` and `read_lora` do, for a LoRA that does not
    fit the model or is merged into it already, and for an fp8 layer with other scales than one or one for each row.
    """
    checkpoint = inspect_checkpoint(path)
    source, names = checkpoint.source, checkpoint.names
    settings = layer_settings(source, names)
    # The dtype of an fp8 weight is certain; settings in the layout of `scaled_fp8` always say E4M3.
    settings |= {
        layer: {**settings.get(layer, {}), "format": COMFY_FP8_FORMATS[source.specs[names[f"{layer}.weight"]].dtype]}
        for layer, quant_format in checkpoint.quantized.items()
        if quant_format == "fp8"
    }
    comfy_quant = {layer: encode_settings(settings.get(layer, {})) for layer in checkpoint.quantized}
    merged: list[tuple[Lora, float]] = []
    shapes = {name: tuple(tensor.shape) for name, tensor in checkpoint.skeleton.state_dict().items()}
    for file in loras:
        check_not_merged(source.path, merged_loras(source), file.path)
        merged.append((read_lora(file.path), file.strength))
        merged[-1][0].coverage(checkpoint.linears, shapes)  # raises an error for a LoRA that does not fit
    part_names = {layer: _part_names(checkpoint, layer) for layer in checkpoint.quantized}
    _check_scales(checkpoint, part_names)
    return WeightReader(checkpoint, shapes, part_names, comfy_quant, merged)


def _part_names(checkpoint: Checkpoint, layer: str) -> dict[str, str]:
    """Returns each part that the file has of a layer -> Wan's name of its tensor."""
    parts = {"weight": "weight", **LEGACY_PARTS, **{part: part for part in COMPANIONS if part != "comfy_quant"}}
    return {part: f"{layer}.{name}" for name, part in parts.items() if f"{layer}.{name}" in checkpoint.names}


def _check_scales(checkpoint: Checkpoint, part_names: Mapping[str, Mapping[str, str]]) -> None:
    """Raises CheckpointError if an fp8 layer has neither one scale nor one for each row.

    part_names: that of `WeightReader`.
    """
    shapes = {
        layer: checkpoint.source.specs[checkpoint.names[names["weight_scale"]]].shape
        for layer, names in part_names.items()
        if "weight_scale" in names and checkpoint.quantized[layer] == "fp8"
    }
    rows = {layer: checkpoint.linears[layer][0] for layer in shapes}
    unsupported = [f"{layer} {list(shape)}" for layer, shape in shapes.items() if prod(shape) not in (1, rows[layer])]
    if unsupported:
        raise CheckpointError(
            f"checkpoint {checkpoint.source.path} has fp8 layers with a scale for each block of a weight: "
            f"{summarize_names(unsupported)}; read are one scale or one for each row: use the bf16 checkpoint"
        )
