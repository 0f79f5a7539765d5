"""What runs beside one layer: a forward hook with all its LoRAs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from comfy.weight_adapter import LoRAAdapter, WeightAdapterBase
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..longlive_core.model.fp8 import FP8Rows, Rows


@dataclass(slots=True)
class LoraHook:
    """The hook of a layer, for all adapters beside it: each of them sees the layer's own output."""

    adapters: list[WeightAdapterBase] = field(default_factory=list)
    handle: RemovableHandle | None = None

    @classmethod
    def on(cls, layer: torch.nn.Module) -> LoraHook:
        """Returns the hook of a layer; registers one where there is none."""
        hook = next((hook for hook in layer._forward_hooks.values() if isinstance(hook, cls)), None)
        if hook is None:
            hook = cls()
            hook.handle = layer.register_forward_hook(hook)
        return hook

    def remove(self, adapter: WeightAdapterBase) -> None:
        """Removes an adapter, and with the last one the hook."""
        self.adapters = [other for other in self.adapters if other is not adapter]
        if not self.adapters and self.handle is not None:
            self.handle.remove()

    def __call__(self, _: torch.nn.Module, inputs: tuple[Rows, ...], output: Tensor) -> Tensor:
        x = inputs[0].values if isinstance(inputs[0], FP8Rows) else inputs[0]
        total = sum((adapter.h(x, output) for adapter in self.adapters if not is_plain(adapter)), output)
        for adapter in self.adapters:
            if is_plain(adapter):
                _add_product(total, x, adapter)
        return total


def is_plain(adapter: WeightAdapterBase) -> TypeGuard[LoRAAdapter]:
    """Whether an adapter is a product of two matrices, and nothing else: no Tucker core, DoRA or new shape."""
    if not isinstance(adapter, LoRAAdapter):
        return False
    up, down, _, *special = adapter.weights
    return up.ndim == down.ndim == 2 and all(part is None for part in special)


def _add_product(y: Tensor, x: Tensor, adapter: LoRAAdapter) -> None:
    """y + strength · alpha / rank · up(down(x)) in place, by one product that reads and writes y once."""
    up, down, alpha = adapter.weights[:3]
    inner = torch.nn.functional.linear(x, down.to(x.dtype)).to(y.dtype)
    scale = adapter.multiplier * (1.0 if alpha is None else alpha / len(down))
    y.view(-1, len(up)).addmm_(inner.reshape(-1, len(down)), up.to(y.dtype).t(), alpha=scale)
