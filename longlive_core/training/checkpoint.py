"""Checkpoints of a training phase, so that an interrupted run resumes at its last saved step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn


class Stateful(Protocol):
    """An object with a state dictionary, such as an optimiser or a weight average."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...  # noqa: ANN401


class TrainingCheckpoint:
    """Checkpoint file of one training phase: step, weights and optimiser state, saved every `every` steps."""

    def __init__(self, path: Path, every: int = 100) -> None:
        self.path, self.every = path, every

    def restore(self, module: nn.Module, *others: Stateful) -> int:
        """Loads the saved state and returns the number of finished steps: 0 if there is no file."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        module.load_state_dict(saved["module"])
        for other, state in zip(others, saved["others"], strict=True):
            other.load_state_dict(state)
        return int(saved["step"])

    def save(self, step: int, module: nn.Module, *others: Stateful, last: bool = False) -> None:
        """Writes the file if `step` is a multiple of `every` or `last` is set."""
        if step % self.every and not last:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A file that is replaced whole stays readable if the process is killed while it writes.
        partial = self.path.with_suffix(".partial")
        torch.save(
            {"step": step, "module": module.state_dict(), "others": [other.state_dict() for other in others]}, partial
        )
        os.replace(partial, self.path)
