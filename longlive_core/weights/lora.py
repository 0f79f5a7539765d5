"""A LoRA of a file: which layers of a model it changes, and the ways to apply it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..model import CausalWan
from ..model.linears import BypassLinear, base_of, linear_layers
from .lora_layer import LayerChange, LoraLayer
from .lora_report import LoraReport, check_shapes
from .names import summarize_names
from .tensor_source import CheckpointError

MERGEABLE_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16}

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA file.

    files: the file itself, or all parts of it, and peft's configuration beside it. layers: Wan's name of a linear layer
    (`blocks.0.self_attn.q`) -> its change. diffs: other tensors of the model (`blocks.0.norm3.weight`) -> what is added
    to them. skipped: layer -> why it is not applied; unused: other tensors.
    """

    path: Path
    files: tuple[Path, ...]
    layers: Mapping[str, LayerChange]
    diffs: Mapping[str, Tensor]
    skipped: Mapping[str, str]
    unused: tuple[str, ...]

    @property
    def kinds(self) -> str:
        """The kinds of its changes, as in `DoRA, biases and norms`."""
        kinds = sorted({layer.kind for layer in self.layers.values()})
        return ", ".join([*kinds, "biases and norms"] if self.diffs else kinds)

    def coverage(self, linears: Shapes, tensors: Shapes | None = None) -> LoraReport:
        """Reports which layers of a model the LoRA changes.

        linears: linear layer of the model -> shape [out, in], such as `Checkpoint.linears`. tensors: all tensors of the
        model -> shape, for changes of biases and norms.
        Raises CheckpointError if a layer has another shape in the model, or if no layer fits.
        """
        model = {name: tuple(shape) for name, shape in {**linears, **(tensors or {})}.items()}
        own = {name: layer.shape for name, layer in self.layers.items()}
        check_shapes(self.path, {**own, **{name: tuple(diff.shape) for name, diff in self.diffs.items()}}, model)
        applied = {name: layer for name, layer in self.layers.items() if name in model}
        ranked = [layer for layer in applied.values() if getattr(layer, "rank", 0)]
        diffs = [name for name in self.diffs if name in model]
        return LoraReport(
            tuple(applied),
            missing=tuple(name for name in linears if name.startswith("blocks.") and name not in self.layers),
            unused=(*(name for name in (*self.layers, *self.diffs) if name not in model), *self.unused),
            ranks=tuple(sorted({int(getattr(layer, "rank", 0)) for layer in ranked})),
            alphas=tuple(sorted({float(getattr(layer, "alpha", 0)) for layer in ranked})),
            kinds=tuple(layer.kind for layer in applied.values()),
            diffs=len(diffs),
            skipped=self.skipped,
        )

    def add_bypass(self, model: CausalWan, strength: float = 1.0) -> LoraReport:
        """Wraps each layer of the model that the LoRA changes in a `BypassLinear`, which adds the change to its output.

        The weights of these layers stay unchanged, so this suits quantised layers as well, and several LoRAs add up.
        Biases, norms and convolutions are replaced by changed ones. Raises CheckpointError as `coverage` does.
        """
        linears = linear_layers(model)
        shapes = {name: (int(x.out_features), int(x.in_features)) for name, x in linears.items()}  # type: ignore[arg-type]
        tensors = _tensors(model)
        report = self.coverage(shapes, {name: tensor.shape for name, (_, tensor) in tensors.items()})
        for name, diff in self.diffs.items():
            if name in tensors:
                module, tensor = tensors[name]
                setattr(
                    module, name.rpartition(".")[2], nn.Parameter(_sum(tensor, strength, diff), requires_grad=False)
                )
        for name in report.applied:
            model.set_submodule(name, _beside(linears[name], self.layers[name], strength, model.device, model.dtype))
        return report

    def comfy_tensors(self) -> dict[str, Tensor]:
        """Returns the tensors by the names that ComfyUI's LoRA loader accepts for this transformer."""
        layers = {f"{name}.{part}": t for name, layer in self.layers.items() for part, t in layer.comfy_parts().items()}
        diffs = {
            f"{name.removesuffix('.bias')}.diff_b"
            if name.endswith(".bias")
            else f"{name.removesuffix('.weight')}.diff": t
            for name, t in self.diffs.items()
        }
        return {f"diffusion_model.{name}": tensor for name, tensor in {**layers, **diffs}.items()}

    def merge(self, state: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
        """Returns `state` (by Wan's names) with changed tensors as new tensors of their dtype; others are shared.

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
        self.coverage({n: w.shape for n, w in weights.items()}, {n: t.shape for n, t in state.items()})
        changed = {f"{name}.weight": self.layers[name].merged(weights[name], strength) for name in applied}
        diffs = {name: _sum(state[name], strength, diff) for name, diff in self.diffs.items() if name in state}
        return {**state, **changed, **diffs}


def _sum(tensor: Tensor, strength: float, diff: Tensor) -> Tensor:
    """tensor + strength · diff in float32, rounded to the dtype of `tensor`."""
    exact = torch.promote_types(tensor.dtype, torch.float32)
    return (tensor.to(exact) + strength * diff.to(tensor.device, exact)).to(tensor.dtype)


def _tensors(model: nn.Module) -> dict[str, tuple[nn.Module, Tensor]]:
    """Name of each parameter but the weights of linear layers, without the LoRAs beside them -> module, parameter."""
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    linears = {f"{name}.weight" for name in linear_layers(model)}
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            wan = f"{path.split('.base')[0]}.{name}".removeprefix(".")
            if wan not in linears:
                found[wan] = module, parameter
    return found


def _beside(
    layer: nn.Module, change: LayerChange, strength: float, device: torch.device, dtype: torch.dtype
) -> BypassLinear:
    """Puts a change beside a layer; a change that is no plain product of two halves is computed from the weight."""
    if isinstance(change, LoraLayer) and change.magnitude is None:
        down, up = change.down.to(device, dtype), change.up.to(device, dtype)
        return BypassLinear(layer, down, up, change.scale, strength)
    base = base_of(layer)
    dequantize = getattr(base, "dequantized_weight", None)
    weight: Tensor = base.get_parameter("weight").float() if dequantize is None else dequantize(torch.float32)
    return BypassLinear(layer, None, change.change(weight).to(device, dtype), 1.0, strength)
