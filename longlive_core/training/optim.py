"""Optimisers, the schedule of the learning rate, and an average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .stage import OptimiserSettings


class MuonAdam:
    """Optimiser: Muon for kernels flattened to `[C_out, -1]`, Adam for parameters of one dimension.

    torch's Muon takes matrices only. The flattened parameters share storage with the model's, so that a step has to
    copy references to gradients, and no weights.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, muon_lr: float, adam_lr: float) -> None:
        parameters = list(parameters)
        self.kernels = [p for p in parameters if p.squeeze().ndim > 1]
        self.vectors = [p for p in parameters if p.squeeze().ndim <= 1]
        self.flat = [nn.Parameter(p.data.view(p.shape[0], -1)) for p in self.kernels]
        self.muon = torch.optim.Muon(self.flat, lr=muon_lr, weight_decay=0.0, momentum=0.95)
        self.adam = torch.optim.Adam(self.vectors, lr=adam_lr, betas=(0.9, 0.99))
        self.peak = (muon_lr, adam_lr)

    def step(self, scale: float = 1.0) -> None:
        """Updates the parameters with `scale` times the peak learning rates, then clears the gradients."""
        for flat, kernel in zip(self.flat, self.kernels, strict=True):
            flat.grad = None if kernel.grad is None else kernel.grad.view_as(flat)
        for optimiser, peak in ((self.muon, self.peak[0]), (self.adam, self.peak[1])):
            for group in optimiser.param_groups:
                group["lr"] = peak * scale
            optimiser.step()
        for parameter in (*self.kernels, *self.vectors):
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """States of both optimisers."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads the states of both optimisers."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


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
            value.copy_(state[name])


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module that require gradients, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def make_adamw(module: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of a module. Raises ValueError if there are none or one is not float32."""
    parameters = trainable(module)
    if not parameters:
        raise ValueError("nothing to train: no parameter requires gradients")
    for name, value in parameters.items():
        if value.dtype != torch.float32:
            raise ValueError(
                f"weight '{name}' is {value.dtype}: trained weights must be float32 (precision is chosen apart)"
            )
    return torch.optim.AdamW(
        parameters.values(),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def lr_scale(settings: OptimiserSettings, step: int, steps: int) -> float:
    """Factor of the learning rate at a step: linear warm-up, then a cosine over all steps from 1 to `final_scale`."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    return settings.final_scale + (1 - settings.final_scale) * 0.5 * (1 + math.cos(math.pi * step / steps))
