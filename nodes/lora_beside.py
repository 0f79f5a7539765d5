"""LoRAs beside the layers of a MODEL: any number of them add up, in any order, beside core's own."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.ops import QuantizedTensor
from comfy.patcher_extension import PatcherInjection
from comfy.weight_adapter import BypassInjectionManager, LoHaAdapter, LoKrAdapter, LoRAAdapter, WeightAdapterBase
from torch import Tensor

from ..longlive_core.weights.lora_layer import LayerChange, LoraLayer
from .lora_hook import LoraHook

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class ChangeAdapter(WeightAdapterBase):
    """A change of a layer that core does not compute, or computes otherwise: a DoRA to merge, a whole weight beside."""

    name = "longlive"

    def __init__(self, change: LayerChange, weights: list[Tensor]) -> None:
        self.change, self.weights, self.loaded_keys = change, weights, set()

    def calculate_weight(self, weight: Tensor, _key: str, strength: float, *_: object, **__: object) -> Tensor:
        """Returns the merged weight."""
        return self.change.merged(weight, strength)

    def h(self, x: Tensor, _base_out: Tensor) -> Tensor:
        """What the change of a whole weight adds to the output."""
        return torch.nn.functional.linear(x, self.weights[0].to(x.dtype)) * self.multiplier


class DoraAdapter(WeightAdapterBase):
    """A DoRA beside a layer, with a magnitude for each output: it makes s · (W + C) of W, where s scales the rows.

    It adds (s - 1) · Wx + s · Cx to Wx, so that it needs no memory of the weight's size.
    """

    name = "longlive"

    def __init__(self, change: LoraLayer) -> None:
        self.change, self.weights, self.loaded_keys = change, change.tensors, set()
        self._scales: Tensor | None = None
        self._bias: Tensor | None = None

    def beside(self, layer: torch.nn.Linear, device: torch.device) -> DoraAdapter:
        """Returns the adapter of a loaded layer; s `[out]` comes from its weight, once for all runs."""
        if self._scales is None:
            weight = layer.weight.to(device)
            weight = weight.dequantize() if isinstance(weight, QuantizedTensor) else weight
            self._scales = self.change.dora_scales(weight.float()).flatten()
        loaded = copy.copy(self)
        loaded._bias = None if layer.bias is None else layer.bias.to(device)
        return loaded

    def h(self, x: Tensor, base_out: Tensor) -> Tensor:
        """What the DoRA adds to the layer's own output."""
        down, up = (half.to(x.dtype) for half in self.weights[:2])
        product = self.change.scale * torch.nn.functional.linear(torch.nn.functional.linear(x, down), up)
        own = base_out if self._bias is None else base_out - self._bias.to(base_out)
        return self.multiplier * ((self._scales - 1).to(own) * own + self._scales.to(own) * product)


@dataclass(slots=True)
class LoraBeside:
    """A LoRA beside layers. adapters: layer (`diffusion_model.blocks.0.ffn.0`) -> core's adapter and its strength.

    Core's bypass replaces `forward`, one LoRA a MODEL, and takes two back in the wrong order. A forward hook adds to
    the output of whatever computes it, and is removed from anywhere.

    The host's clones of a MODEL share this object, and a clone that is freed ejects even if it was never loaded. Only
    `owner`, the id of the MODEL that was loaded, takes the hooks off.
    """

    adapters: Mapping[str, tuple[WeightAdapterBase, float]]
    hooked: list[tuple[torch.nn.Module, WeightAdapterBase]] = field(default_factory=list)
    owner: int | None = None

    def inject(self, patcher: comfy.model_patcher.ModelPatcher) -> None:
        """Hooks the layers of the loaded MODEL."""
        self._remove()
        self.owner, device = id(patcher), comfy.model_management.get_torch_device()
        for name, (adapter, strength) in self.adapters.items():
            layer = patcher.model.get_submodule(name)
            dtype = layer.weight.dtype if layer.weight.dtype in FLOATS else None
            moved = adapter.beside(layer, device) if isinstance(adapter, DoraAdapter) else copy.copy(adapter)
            moved.weights = [w.to(device, dtype) if isinstance(w, Tensor) else w for w in adapter.weights]
            moved.multiplier = strength
            LoraHook.on(layer).adapters.append(moved)
            self.hooked.append((layer, moved))

    def eject(self, patcher: comfy.model_patcher.ModelPatcher) -> None:
        """Takes the LoRA off the layers of the MODEL that was loaded with it."""
        if self.owner == id(patcher):
            self._remove()

    def _remove(self) -> None:
        self.owner = None
        while self.hooked:
            layer, adapter = self.hooked.pop()
            LoraHook.on(layer).remove(adapter)


def add_beside(
    model: comfy.model_patcher.ModelPatcher, adapters: Mapping[str, tuple[WeightAdapterBase, float]]
) -> None:
    """Adds a LoRA beside the layers of a MODEL, besides those that it has."""
    beside = LoraBeside(adapters)
    # The host takes two MODELs with the same keys for the same weights.
    model.set_injections(f"longlive_lora_{uuid4().hex}", [PatcherInjection(inject=beside.inject, eject=beside.eject)])


def moved_beside(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """Returns the MODEL with the LoRAs of core's loader beside its quantised weights, into which it would merge them.

    It would round the weights a second time, which costs more than most LoRAs change. What cannot run beside a layer
    stays as it is, and so does what `keep_merged` marked.
    """
    modules = dict(model.model.named_modules())
    moved = {
        key: patches
        for key, patches in model.patches.items()
        if _is_quantised(modules.get(key.removesuffix(".weight"))) and all(map(_can_move, patches))
    }
    if not moved:
        return model
    changed = model.clone()
    changed.patches = {key: patches for key, patches in changed.patches.items() if key not in moved}
    changed.patches_uuid = uuid4()
    for index in range(max(map(len, moved.values()))):
        own = {key.removesuffix(".weight"): patches[index] for key, patches in moved.items() if index < len(patches)}
        add_beside(changed, {layer: (patch[1], patch[0]) for layer, patch in own.items()})
    return changed


def _is_quantised(layer: torch.nn.Module | None) -> bool:
    return isinstance(getattr(layer, "weight", None), QuantizedTensor)


def keep_merged(adapters: Iterable[object]) -> None:
    """Marks adapters that the user wants merged, whatever the weights are."""
    for adapter in adapters:
        if isinstance(adapter, WeightAdapterBase):
            adapter.longlive_merge = True


def _can_move(patch: tuple[float, object, float, object, object]) -> bool:
    """Whether a patch (strength, adapter, strength of the weight, offset, function) can run beside a layer."""
    _, adapter, strength_model, offset, function = patch
    if not isinstance(adapter, LoRAAdapter | LoHaAdapter | LoKrAdapter) or hasattr(adapter, "longlive_merge"):
        return False
    # The two halves, and alpha; after them come Tucker cores, DoRA and shapes. LoHa and LoKr have more factors.
    special = {LoRAAdapter: slice(3, None), LoHaAdapter: slice(5, None), LoKrAdapter: slice(7, None)}[type(adapter)]
    plain = all(part is None for part in adapter.weights[special])
    return plain and strength_model == 1.0 and offset is None and function is None


def loras_beside(
    model: comfy.model_patcher.ModelPatcher,
) -> Iterator[Mapping[str, tuple[WeightAdapterBase, float]]]:
    """Yields the adapters of each LoRA beside layers of a MODEL, ours and core's.

    The host has no list of core's, so they are read from the closures of its injection functions.
    """
    for injections in model.injections.values():
        for function in (injection.inject for injection in injections):
            owner = getattr(function, "__self__", None)
            cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
            yield from (o.adapters for o in (owner, *cells) if isinstance(o, LoraBeside | BypassInjectionManager))
