"""A toy stage of training: linear regression with an error buffer, and a critic that is updated on every 2nd step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from longlive.longlive_core.training.stage import Loss, OptimiserSettings, Origin, Trained
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from torch import Tensor, nn

ADAMW = OptimiserSettings(lr=0.01, ema_decay=0.9, ema_start=3)
SETTINGS = TrainerSettings(steps=12, seed=5, save_every=4, validate_every=3, accumulation=2)


class ToyStage:
    """Regression by "model"; "critic" learns the model's output. Each loss adds the errors that it stored before.

    spoil: changes the loss of a step, for example to NaN.
    """

    name = "toy"
    origins: Mapping[str, Origin] = {}

    def __init__(
        self,
        seed: int = 5,
        optimiser: OptimiserSettings = ADAMW,
        width: int = 4,
        spoil: Callable[[int, Tensor], Tensor] = lambda _, loss: loss,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.seed, self.spoil = seed, spoil
        self.model, self.critic = nn.Linear(width, 2), nn.Linear(width, 2)
        for parameter in (*self.model.parameters(), *self.critic.parameters()):
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.trained = (
            Trained("model", self.model, optimiser),
            Trained("critic", self.critic, replace(optimiser, every=2, ema_decay=None)),
        )
        self.errors = torch.zeros(2)
        self.count = 0

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """Mean squared error on random rows; stores the mean error."""
        generator = torch.Generator().manual_seed(1_000_000 * self.seed + 1000 * step + part)
        rows = torch.randn(3, self.model.in_features, generator=generator)
        wanted = rows[:, :2].sin() + 0.1 * self.errors
        output = self.model(rows)
        if name == "critic":
            output, wanted = self.critic(rows), output.detach()
        error = output - wanted
        self.errors = 0.5 * self.errors + error.detach().mean(0)
        self.count += 1
        return Loss(
            self.spoil(step, error.square().mean()),
            {"error": float(error.detach().abs().mean())},
            f"rows {step}.{part}",
        )

    def validation_loss(self, step: int, /) -> dict[str, float]:
        """The square of the weights: a number that depends on the state."""
        return {"square": float(self.model.weight.square().sum())} if step >= 0 else {}

    def state_dict(self) -> dict[str, Any]:
        """The stored errors, and how many."""
        return {"errors": self.errors, "count": self.count}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restores `state_dict`."""
        self.errors, self.count = state["errors"], state["count"]


def train(folder: Path, steps: int) -> None:
    """Trains the toy in a folder with a checkpoint after each step."""
    Trainer(ToyStage(), replace(SETTINGS, steps=steps, save_every=1), folder).run()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), int(sys.argv[2]))
