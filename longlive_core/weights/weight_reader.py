"""Every tensor of a checkpoint in floats, one at a time, whatever it is packed in; a LoRA merged on the way."""

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
from .packing import COMFY_FP8_FORMATS, Parts, note, unpack
from .tensor_source import CheckpointError, TensorSpec

# How the layout of `scaled_fp8` calls the parts of a layer.
LEGACY_PARTS = {"scale_weight": "weight_scale", "scale_input": "input_scale"}


@dataclass(frozen=True, slots=True)
class WeightReader:
    """A checked file whose tensors are read one by one, by Wan's names.

    `shapes`: every tensor of the model -> its shape, unpacked, in the model's order. `stored`: quantised layer -> part,
    as ComfyUI calls it today -> Wan's name of its tensor. `notes`: layer -> the bytes of its `comfy_quant`. `lora` is
    merged into the floats with `strength`.
    """

    found: Checkpoint
    shapes: Mapping[str, tuple[int, ...]]
    stored: Mapping[str, Mapping[str, str]]
    notes: Mapping[str, Tensor]
    lora: Lora | None
    strength: float

    def floats(self, name: str) -> Tensor:
        """A tensor of the model: as the file has it, or in float32 where it is unpacked or the LoRA changes it."""
        layer = name.removesuffix(".weight") if name.endswith(".weight") else ""
        if layer in self.stored:
            rows, columns = self.shapes[name]
            tensor = unpack(self.parts(layer), (rows, columns))
        else:
            tensor = self._read(name)
        if self.lora is None or layer not in self.lora.layers:
            return tensor
        exact = torch.promote_types(tensor.dtype, torch.float32)
        return self.lora.layers[layer].merged(tensor.to(exact), self.strength)

    def parts(self, layer: str) -> Parts:
        """A quantised layer as it is packed, in the layout that ComfyUI writes today."""
        parts = {part: self._read(name) for part, name in self.stored[layer].items()}
        if self.found.quantised[layer] == "nvfp4":
            parts["weight_scale"] = parts["weight_scale"].view(torch.float8_e4m3fn)
        parts = {"weight_scale": torch.ones(()), **parts}
        scalar = self._scalar(layer)
        return {**parts, scalar: parts[scalar].float().reshape(()), "comfy_quant": self.notes[layer]}

    def part_specs(self, layer: str) -> dict[str, TensorSpec]:
        """What `parts` gives."""
        specs = {part: self._spec(name) for part, name in self.stored[layer].items()}
        if self.found.quantised[layer] == "nvfp4":
            specs["weight_scale"] = TensorSpec("F8_E4M3", specs["weight_scale"].shape)
        mark = TensorSpec("U8", tuple(self.notes[layer].shape))
        return {**specs, self._scalar(layer): TensorSpec("F32", ()), "comfy_quant": mark}

    def _scalar(self, layer: str) -> str:
        return "weight_scale" if self.found.quantised[layer] == "fp8" else "weight_scale_2"

    def _spec(self, name: str) -> TensorSpec:
        return self.found.source.specs[self.found.names[name]]

    def _read(self, name: str) -> Tensor:
        stored = self.found.names[name]
        return self.found.source.read([stored])[stored]


def open_weights(path: Path | str, *, lora: Path | str | None = None, strength: float = 1.0) -> WeightReader:
    """Checks a checkpoint of any format, FourOverSix too, and a LoRA for it. No weight is read.

    Raises FileNotFoundError, or CheckpointError for what `inspect_checkpoint` and `read_lora` refuse, for a LoRA that
    does not fit the model, and for fp8 layers that are not scaled by one number.
    """
    found = inspect_checkpoint(path)
    stored = {layer: _stored(found, layer) for layer in found.quantised}
    said = layer_settings(found.source, found.names)
    notes: dict[str, Tensor] = {}
    for layer, form in found.quantised.items():
        dtype = found.source.specs[found.names[f"{layer}.weight"]].dtype
        notes[layer] = note({**said.get(layer, {}), **({"format": COMFY_FP8_FORMATS[dtype]} if form == "fp8" else {})})
    read = None if lora is None else read_lora(lora)
    if read is not None:
        read.coverage(found.linears)
    shapes = {name: tuple(tensor.shape) for name, tensor in found.skeleton.state_dict().items()}
    reader = WeightReader(found, shapes, stored, notes, read, strength)
    _check_scales(reader)
    return reader


def _stored(found: Checkpoint, layer: str) -> dict[str, str]:
    """Part -> Wan's name of its tensor, for those that the file has of a layer."""
    spelled = {"weight": "weight", **LEGACY_PARTS, **{part: part for part in COMPANIONS if part != "comfy_quant"}}
    return {part: f"{layer}.{name}" for name, part in spelled.items() if f"{layer}.{name}" in found.names}


def _check_scales(reader: WeightReader) -> None:
    found = reader.found
    scales = {layer: parts.get("weight_scale") for layer, parts in reader.stored.items()}
    shapes = {
        layer: found.source.specs[found.names[name]].shape
        for layer, name in scales.items()
        if name is not None and found.quantised[layer] == "fp8"
    }
    strange = [f"{layer} {list(shape)}" for layer, shape in shapes.items() if prod(shape) != 1]
    if strange:
        raise CheckpointError(
            f"checkpoint {found.source.path} has fp8 layers with more than one scale each: {summarize_names(strange)}; "
            "use the bf16 checkpoint"
        )
