"""Training that can be stopped at any step and goes on from there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...  # noqa: ANN401


class Checkpoint:
    """One stage of training on disk: step, weights and optimiser, written atomically every `every` steps."""

    def __init__(self, path: Path, every: int = 100) -> None:
        self.path, self.every = path, every

    def restore(self, module: nn.Module, *others: Stateful) -> int:
        """Loads what was kept and returns the number of finished steps, 0 when there is nothing."""
        if not self.path.exists():
            return 0
        kept = torch.load(self.path, map_location="cpu", weights_only=True)
        module.load_state_dict(kept["module"])
        for other, state in zip(others, kept["others"], strict=True):
            other.load_state_dict(state)
        return int(kept["step"])

    def keep(self, step: int, module: nn.Module, *others: Stateful, last: bool = False) -> None:
        """Writes when the step is due or the last."""
        if step % self.every and not last:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(
            {"step": step, "module": module.state_dict(), "others": [other.state_dict() for other in others]}, partial
        )
        os.replace(partial, self.path)
