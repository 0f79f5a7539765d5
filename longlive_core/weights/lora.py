"""Reads LoRAs and applies them to linear layers: W + strength · alpha / rank · up @ down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..model import CausalWan
from ..model.linears import BypassLinear
from .lora_alpha import layer_alpha, parse_alpha, read_alphas
from .lora_names import parse_lora_name
from .lora_report import LoraReport, check_shapes
from .names import summarize_names
from .tensor_source import LORA_WRAPPER_KEYS, CheckpointError, open_source

MERGEABLE_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The LoRA of one linear layer: down `[rank, in]`, up `[out, rank]`, scaled by alpha / rank."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [out, in] of the layer's weight."""
        return self.up.shape[0], self.down.shape[1]

    def merged(self, weight: Tensor, strength: float) -> Tensor:
        """Returns `weight` `[out, in]` plus the update, in the dtype and on the device of `weight`.

        The sum is made in float32, or in float64 for a float64 weight.
        """
        exact = torch.promote_types(weight.dtype, torch.float32)
        up, down = (half.to(weight.device, exact) for half in (self.up, self.down))
        return (weight.to(exact) + (strength * self.alpha / self.rank) * (up @ down)).to(weight.dtype)


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA file. layers: Wan's name of a layer (`blocks.0.self_attn.q`) -> its LoRA; unused: all other tensors."""

    path: Path
    layers: Mapping[str, LoraLayer]
    unused: tuple[str, ...]

    def coverage(self, linears: Mapping[str, Sequence[int]]) -> LoraReport:
        """Reports which layers of a model the LoRA changes.

        linears: linear layer of the model -> shape [out, in], such as `Checkpoint.linears`.
        Raises CheckpointError if a layer has another shape in the model, or if no layer fits.
        """
        model = {name: tuple(shape) for name, shape in linears.items()}
        check_shapes(self.path, {name: layer.shape for name, layer in self.layers.items()}, model)
        applied = tuple(name for name in self.layers if name in model)
        return LoraReport(
            applied,
            missing=tuple(name for name in model if name.startswith("blocks.") and name not in self.layers),
            unused=(*(name for name in self.layers if name not in model), *self.unused),
            ranks=tuple(sorted({self.layers[name].rank for name in applied})),
            alphas=tuple(sorted({self.layers[name].alpha for name in applied})),
        )

    def add_bypass(self, model: CausalWan, strength: float = 1.0) -> LoraReport:
        """Wraps each layer of the model that the LoRA changes in a `BypassLinear`, which adds the LoRA to its output.

        The weights themselves stay unchanged, so this suits quantised layers as well. The `strength` of a
        `BypassLinear` may be changed later. Raises CheckpointError as `coverage` does.
        """
        linears = {name: layer for name, layer in model.named_modules() if hasattr(layer, "in_features")}
        report = self.coverage({n: (int(x.out_features), int(x.in_features)) for n, x in linears.items()})  # type: ignore[arg-type]
        device, dtype = model.device, model.dtype
        for name in report.applied:
            layer = self.layers[name]
            down, up = layer.down.to(device, dtype), layer.up.to(device, dtype)
            model.set_submodule(name, BypassLinear(linears[name], down, up, layer.alpha / layer.rank, strength))
        return report

    def comfy_tensors(self) -> dict[str, Tensor]:
        """Returns the tensors by the names that ComfyUI's LoRA loader accepts for this transformer."""
        tensors: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            tensors[f"diffusion_model.{name}.lora_A.weight"] = layer.down
            tensors[f"diffusion_model.{name}.lora_B.weight"] = layer.up
            tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(layer.alpha)
        return tensors

    def merge(self, state: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
        """Returns `state` (by Wan's names) with changed weights as new tensors of their dtype; others are shared.

        Raises CheckpointError if no layer fits, if shapes differ, and for quantised weights, because rounding them
        again would lose the LoRA.
        """
        weights = {n.removesuffix(".weight"): w for n, w in state.items() if n.endswith(".weight") and w.ndim == 2}
        applied = {name for name in self.layers if name in weights}
        quantized = [
            f"{name} ({weight.dtype})"
            for name, weight in weights.items()
            if name in applied and weight.dtype not in MERGEABLE_DTYPES
        ]
        if quantized:
            raise CheckpointError(
                f"lora {self.path} cannot be merged into quantised weights ({summarize_names(quantized)}); apply it as "
                "a bypass, or merge it into the bf16 checkpoint"
            )
        self.coverage({name: weight.shape for name, weight in weights.items()})
        changed = {f"{name}.weight": self.layers[name].merged(weights[name], strength) for name in applied}
        return {**state, **changed}


def read_lora(path: Path | str) -> Lora:
    """Reads the LoRA of a safetensors file or of an official .pt file (its `generator_lora`).

    Accepts the names of peft, ComfyUI, kohya and diffusers. The alpha of a layer is its `.alpha` tensor, else the alpha
    in the metadata, else its rank. Raises FileNotFoundError, or CheckpointError for a file that is truncated, holds no
    LoRA, has a layer twice, or has two halves that do not fit together.
    """
    source = open_source(path, LORA_WRAPPER_KEYS)
    names_by_layer: dict[str, dict[str, str]] = {}
    repeated: list[str] = []
    for name in source.specs:
        layer, part = parse_lora_name(name) or ("", "")
        if part and part in names_by_layer.setdefault(layer, {}):
            repeated.append(name)
        if part:
            names_by_layer[layer][part] = name
    if repeated:
        raise CheckpointError(f"lora {source.path} holds layers twice, under two names: {summarize_names(repeated)}")
    tensors = source.read(name for names in names_by_layer.values() for name in names.values())
    alphas = read_alphas(source)
    layers: dict[str, LoraLayer] = {}
    for layer, names in names_by_layer.items():
        down, up = (tensors[names[half]] if half in names else None for half in ("down", "up"))
        # Other tensors are reported as unused: half a layer, convolutions, quantised halves.
        if down is None or up is None or not (down.ndim == up.ndim == 2 and down.is_floating_point()):
            continue
        if down.shape[0] != up.shape[1] or not down.shape[0]:
            raise CheckpointError(
                f"lora {source.path}: the halves of '{layer}' do not fit together: down {list(down.shape)} (rank, in) "
                f"and up {list(up.shape)} (out, rank); copy the file again"
            )
        own = tensors[names["alpha"]].flatten().tolist() if "alpha" in names else []
        alpha = parse_alpha(source, own[0] if len(own) == 1 else own) if own else layer_alpha(layer, alphas, len(down))
        layers[layer] = LoraLayer(down, up, alpha)
    used = {name for layer in layers for name in names_by_layer[layer].values()}
    unused = tuple(name for name in source.specs if name not in used)
    if not layers:
        raise CheckpointError(
            f"lora {source.path} holds no LoRA of a linear layer among its {len(unused)} tensors "
            f"({summarize_names(unused)}); load a whole model with the model loader"
        )
    return Lora(source.path, layers, unused)
