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
from torch.utils.hooks import RemovableHandle

from ..longlive_core.weights.lora_layer import LayerChange

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


@dataclass(frozen=True, slots=True)
class LoraBeside:
    """A LoRA beside layers. adapters: layer (`diffusion_model.blocks.0.ffn.0`) -> core's adapter and its strength.

    Core's bypass replaces `forward`, one LoRA a MODEL, and takes two back in the wrong order. A forward hook adds to
    the output of whatever computes it, and is removed from anywhere.
    """

    adapters: Mapping[str, tuple[WeightAdapterBase, float]]
    handles: list[RemovableHandle] = field(default_factory=list)

    def inject(self, patcher: comfy.model_patcher.ModelPatcher) -> None:
        """Hooks the layers of the loaded MODEL."""
        device = comfy.model_management.get_torch_device()
        for name, (adapter, strength) in self.adapters.items():
            layer = patcher.model.get_submodule(name)
            dtype = layer.weight.dtype if layer.weight.dtype in FLOATS else None
            moved = copy.copy(adapter)
            moved.weights = [w.to(device, dtype) if isinstance(w, Tensor) else w for w in adapter.weights]
            moved.multiplier = strength
            self.handles.append(layer.register_forward_hook(_Hook(moved)))

    def eject(self, _: comfy.model_patcher.ModelPatcher) -> None:
        """Removes the hooks."""
        while self.handles:
            self.handles.pop().remove()


@dataclass(frozen=True, slots=True)
class _Hook:
    adapter: WeightAdapterBase

    def __call__(self, _: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + self.adapter.h(inputs[0], output)


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
    weights = dict(model.model.named_parameters())
    moved = {
        key: patches
        for key, patches in model.patches.items()
        if isinstance(weights.get(key), QuantizedTensor) and all(map(_can_move, patches))
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
