"""One trained part of a run: its weights, their optimiser and their average."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .optim import Optimiser, WeightAverage, lr_scale, trainable
from .sharding import reshard, shard_like
from .stage import Trained


class TrainedPart:
    """What a stage trains by one name, with its optimiser. average: of the weights, once it has begun."""

    def __init__(self, trained: Trained) -> None:
        """Raises ValueError if the module has no trainable parameter, or one that is not float32."""
        self.name, self.module, self.settings = trained.name, trained.module, trained.optimiser
        self.average: WeightAverage | None = None
        self._optimiser = Optimiser(trained.module, trained.optimiser)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        return trainable(self.module)

    @property
    def rates(self) -> str:
        """The learning rates, for messages."""
        lr, muon_lr = self.settings.lr, self.settings.muon_lr
        return f"{lr:g}" if muon_lr is None else f"{lr:g}, Muon {muon_lr:g}"

    @property
    def bytes(self) -> int:
        """Size of the part in a checkpoint: weights, two moments and the average."""
        copies = 3 + bool(self.settings.ema_decay)
        return copies * sum(4 * p.numel() for p in self.weights.values())

    def update(self, step: int, steps: int) -> float:
        """Updates the weights and their average, and clears gradients; returns AdamW's learning rate.

        step: from 0, of `steps` in the run.
        """
        settings = self.settings
        if settings.ema_decay and self.average is None and step >= settings.ema_start:
            self.average = WeightAverage(self.module, settings.ema_decay)
        scale = lr_scale(settings, step, steps)
        self._optimiser.step(scale)
        if self.average is not None:
            self.average.update(self.module)
        return settings.lr * scale

    @contextmanager
    def averaged(self) -> Generator[None, None, None]:
        """Replaces the weights by their average, if there is one, until the context ends."""
        if self.average is None:
            yield
            return
        own = [p.detach().clone() for p in self.weights.values()]
        self.average.copy_to(self.module)
        try:
            yield
        finally:
            reshard(self.module)
            for p, value in zip(self.weights.values(), own, strict=True):
                p.data.copy_(value)

    def state_dict(self, *, gradients: bool) -> dict[str, Any]:
        """Returns what a checkpoint holds. gradients: those that are there are part of it."""
        weights = self.weights
        return {
            "weights": {name: p.detach() for name, p in weights.items()},
            "optimiser": self._optimiser.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "gradients": {k: p.grad for k, p in weights.items() if gradients and p.grad is not None},
        }

    @torch.no_grad()
    def load_state_dict(self, saved: dict[str, Any], where: Path) -> None:
        """Restores what `state_dict` returned. where: the checkpoints, for messages.

        Raises ValueError for the weights of another model and for the state of other optimisers.
        """
        weights = self.weights
        if fault := _difference(saved["weights"], weights):
            raise ValueError(f"the checkpoints in {where} are of another model: '{self.name}' {fault}")
        for name, p in weights.items():
            p.copy_(shard_like(saved["weights"][name], p))
            gradient = saved["gradients"].get(name)
            p.grad = None if gradient is None else gradient.to(p.device)
        self._optimiser.load_state_dict(saved["optimiser"])
        if saved["average"] is not None and self.settings.ema_decay:
            self.average = WeightAverage(self.module, self.settings.ema_decay)
            self.average.load_state_dict(saved["average"])


def _difference(saved: dict[str, Tensor], weights: dict[str, nn.Parameter]) -> str:
    """Says how two sets of weights differ in names and shapes; empty if they do not."""
    if other := sorted(saved.keys() ^ weights.keys()):
        return f"has other weights ({', '.join(other[:3])}{', …' * (len(other) > 3)})"
    for name, p in weights.items():
        if saved[name].shape != p.shape:
            return f"has '{name}' of shape {tuple(saved[name].shape)}, not {tuple(p.shape)}"
    return ""
