"""A LoRA: small changes to linear layers, W + strength · alpha / rank · up @ down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..model import CausalWan
from ..model.linears import BypassLinear
from .lora_alpha import layer_alpha, number, read_alphas
from .lora_names import parse_lora_name
from .lora_report import LoraReport, check_shapes
from .names import summarize_names
from .tensor_source import LORA_WRAPPER_KEYS, CheckpointError, open_source

MERGEABLE_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The change of one linear layer: down `[rank, in]`, up `[out, rank]`, scaled by alpha / rank."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in] of the layer's weight."""
        return self.up.shape[0], self.down.shape[1]

    def merged(self, weight: Tensor, strength: float) -> Tensor:
        """`weight` `[out, in]` changed, summed in float32 (float64 for its own), in the weight's dtype and place."""
        exact = torch.promote_types(weight.dtype, torch.float32)
        up, down = (part.to(weight.device, exact) for part in (self.up, self.down))
        return (weight.to(exact) + (strength * self.alpha / self.rank) * (up @ down)).to(weight.dtype)


@dataclass(frozen=True, slots=True)
class Lora:
    """The layers of a LoRA file by Wan's own names (`blocks.0.self_attn.q`); `unused` are its other tensors' names."""

    path: Path
    layers: Mapping[str, LoraLayer]
    unused: tuple[str, ...]

    def coverage(self, linears: Mapping[str, Sequence[int]]) -> LoraReport:
        """What this LoRA does to a model whose linear layers have these shapes [out, in], such as
        `Checkpoint.linears`.

        Raises CheckpointError where a layer has another shape in the model, or where no layer fits.
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

    def beside(self, model: CausalWan, strength: float = 1.0) -> LoraReport:
        """Puts every layer of this LoRA beside the model's, which stay as they are, quantised or not.

        Their `strength` (of `BypassLinear`) may be changed later. Raises CheckpointError as `coverage` does.
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
        """The tensors under the names that ComfyUI's LoRA loader takes for this transformer."""
        tensors: dict[str, Tensor] = {}
        for name, layer in self.layers.items():
            tensors[f"diffusion_model.{name}.lora_A.weight"] = layer.down
            tensors[f"diffusion_model.{name}.lora_B.weight"] = layer.up
            tensors[f"diffusion_model.{name}.alpha"] = torch.tensor(layer.alpha)
        return tensors

    def merge(self, state: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
        """`state` (Wan's names) with the changed weights as new tensors in their own dtypes; the others are the same.

        Raises CheckpointError where nothing fits or shapes differ, and for quantised weights, which merging would
        round away.
        """
        weights = {n.removesuffix(".weight"): w for n, w in state.items() if n.endswith(".weight") and w.ndim == 2}
        applied = {name for name in self.layers if name in weights}
        packed = [
            f"{name} ({weights[name].dtype})"
            for name in weights
            if name in applied and weights[name].dtype not in MERGEABLE_DTYPES
        ]
        if packed:
            raise CheckpointError(
                f"lora {self.path} cannot be merged into quantised weights ({summarize_names(packed)}); apply it beside the "
                "layers, or merge it into the bf16 checkpoint"
            )
        self.coverage({name: weight.shape for name, weight in weights.items()})
        changed = {f"{name}.weight": self.layers[name].merged(weights[name], strength) for name in applied}
        return {**state, **changed}


def read_lora(path: Path | str) -> Lora:
    """The LoRA in a safetensors file or an official .pt (its `generator_lora`), in the names of peft, ComfyUI, kohya
    or diffusers.

    A layer's alpha is its own `.alpha`, else what the metadata says, else its rank. Raises FileNotFoundError, or
    CheckpointError for a file that is truncated, holds no LoRA, or has layers twice or halves that do not fit.
    """
    source = open_source(path, LORA_WRAPPER_KEYS)
    names: dict[str, dict[str, str]] = {}
    twice: list[str] = []
    for name in source.specs:
        layer, part = parse_lora_name(name) or ("", "")
        if part and part in names.setdefault(layer, {}):
            twice.append(name)
        if part:
            names[layer][part] = name
    if twice:
        raise CheckpointError(f"lora {source.path} holds layers twice, under two names: {summarize_names(twice)}")
    tensors = source.read(name for parts in names.values() for name in parts.values())
    said = read_alphas(source)
    layers: dict[str, LoraLayer] = {}
    for layer, parts in names.items():
        down, up = (tensors[parts[half]] if half in parts else None for half in ("down", "up"))
        if down is None or up is None or not (down.ndim == up.ndim == 2 and down.is_floating_point()):
            continue
        if down.shape[0] != up.shape[1] or not down.shape[0]:
            raise CheckpointError(
                f"lora {source.path}: the halves of '{layer}' do not fit, down {list(down.shape)} (rank, in) and up "
                f"{list(up.shape)} (out, rank); copy the file again"
            )
        own = tensors[parts["alpha"]].flatten().tolist() if "alpha" in parts else []
        alpha = number(source, own[0] if len(own) == 1 else own) if own else layer_alpha(layer, said, down.shape[0])
        layers[layer] = LoraLayer(down, up, alpha)
    used = {name for layer in layers for name in names[layer].values()}
    unused = tuple(name for name in source.specs if name not in used)
    if not layers:
        raise CheckpointError(
            f"lora {source.path} holds no LoRA of a linear layer among its {len(unused)} tensors ({summarize_names(unused)}); "
            "a whole model is loaded with the model loader"
        )
    return Lora(source.path, layers, unused)
