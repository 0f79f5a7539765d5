"""Optimisers, the schedule of the learning rate, and an average of weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .sharding import shard_like
from .stage import OptimiserSettings

MUON_MOMENTUM = 0.95


class Optimiser:
    """The optimiser of a module's trainable parameters: AdamW, or Muon for kernels and AdamW for vectors.

    Kernels have two or more dimensions, those of size 1 left aside. torch's Muon takes matrices only, so it gets them
    flattened to `[C_out, -1]`, in the same storage: a step copies references to gradients, and no weights.
    """

    def __init__(self, module: nn.Module, settings: OptimiserSettings) -> None:
        """Raises ValueError if the module has no trainable parameter, or one that is not float32."""
        parameters = _trainable_float32(module)
        muon = settings.muon_lr is not None
        self._kernels = [p for p in parameters if muon and p.squeeze().ndim > 1]
        self._flat = [nn.Parameter(p.data.view(p.shape[0], -1)) for p in self._kernels]
        vectors = [p for p in parameters if not muon or p.squeeze().ndim <= 1]
        decay = settings.weight_decay
        self._vectors = vectors if settings.offload else []
        self._offloaded = [nn.Parameter(p.detach().to("cpu", copy=True)) for p in self._vectors]
        # Each with its learning rate. An optimiser of no parameters is an error in torch.
        self._optimisers: dict[str, tuple[torch.optim.Optimizer, float]] = {}
        if vectors:
            adam = torch.optim.AdamW(self._offloaded or vectors, settings.lr, settings.betas, settings.eps, decay)
            self._optimisers["adam"] = adam, settings.lr
        if self._kernels and settings.muon_lr is not None:
            lr = settings.muon_lr
            self._optimisers["muon"] = torch.optim.Muon(self._flat, lr, decay, MUON_MOMENTUM), lr
        self._module = module

    def step(self, scale: float = 1.0) -> None:
        """Updates the parameters with `scale` times the learning rates, then clears the gradients."""
        for flat, kernel in zip(self._flat, self._kernels, strict=True):
            flat.grad = None if kernel.grad is None else kernel.grad.view_as(flat)
        with torch.no_grad():
            for copy, vector in zip(self._offloaded, self._vectors, strict=True):
                copy.copy_(vector)
                copy.grad = None if vector.grad is None else vector.grad.cpu()
        for optimiser, lr in self._optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = lr * scale
            optimiser.step()
        with torch.no_grad():
            for copy, vector in zip(self._offloaded, self._vectors, strict=True):
                vector.copy_(copy)
                copy.grad = None
        self._module.zero_grad()

    def state_dict(self) -> dict[Any, Any]:
        """Returns the moments, without settings: of each optimiser by name, or those of AdamW if it is alone."""
        states = {name: optimiser.state_dict()["state"] for name, (optimiser, _) in self._optimisers.items()}
        return states if self._kernels else states["adam"]

    def load_state_dict(self, state: dict[Any, Any]) -> None:
        """Restores what `state_dict` returned. Raises ValueError for the state of other optimisers."""
        states: dict[str, Any] = state if "muon" in state else {"adam": state}
        if states.keys() != self._optimisers.keys():
            saved, own = (" and ".join(names) for names in (states, self._optimisers))
            raise ValueError(f"the checkpoint is of the optimiser {saved}, not {own}: set or unset 'muon_lr' as before")
        for name, (optimiser, _) in self._optimisers.items():
            # Settings of the optimiser are those of this run.
            own = [p for group in optimiser.param_groups for p in group["params"]]
            state = {i: {k: shard_like(v, own[i]) for k, v in moments.items()} for i, moments in states[name].items()}
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


class WeightAverage:
    """Exponential moving average of a module's trainable weights: average ← decay · average + (1 − decay) · weights.

    The average is kept in float32, on the device of the weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        # Not .float() alone: it would return the weight itself where that is float32 already.
        self.weights = {name: p.detach().clone().float() for name, p in trainable(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Moves the average towards the module's weights."""
        for name, value in trainable(module).items():
            self.weights[name].mul_(self.decay).add_(value.detach(), alpha=1 - self.decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Sets the module's trainable weights to the average."""
        for name, value in trainable(module).items():
            value.copy_(self.weights[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self.weights

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replaces the averaged weights. Raises KeyError if one is missing."""
        for name, value in self.weights.items():
            value.copy_(shard_like(state[name], value))


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module that require gradients, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _trainable_float32(module: nn.Module) -> list[nn.Parameter]:
    """The trainable parameters of a module. Raises ValueError if there are none or one is not float32."""
    parameters = trainable(module)
    if not parameters:
        raise ValueError("nothing to train: no parameter requires gradients")
    for name, value in parameters.items():
        if value.dtype != torch.float32:
            raise ValueError(
                f"weight '{name}' is {value.dtype}: trained weights must be float32 (precision is chosen apart)"
            )
    return list(parameters.values())


def lr_scale(settings: OptimiserSettings, step: int, steps: int) -> float:
    """Factor of the learning rates at a step of `steps`: linear warm-up, then a cosine from 1 to `final_scale`.

    The cosine is over `horizon` steps, after which the factor stays, or over all.
    """
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    horizon = steps if settings.horizon is None else settings.horizon
    cosine = math.cos(math.pi * min(step, horizon) / horizon)
    return settings.final_scale + (1 - settings.final_scale) * 0.5 * (1 + cosine)
