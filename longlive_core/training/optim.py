"""MuonAdam, which updates matrices and kernels with Muon and vectors with Adam; an average of weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


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
    """Exponential moving average of a module's weights: average ← decay · average + (1 − decay) · weights."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Moves the average towards the module's weights."""
        for name, value in module.state_dict().items():
            self.weights[name].lerp_(value, 1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self.weights

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replaces the averaged weights."""
        self.weights = state
