"""A recorded run of the reference: one safetensors file with its numbers, weights beside it or inside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

FORMAT = "longlive-golden-1"


@dataclass(frozen=True, slots=True)
class Recorded:
    """`facts` are the metadata, JSON decoded where it is JSON; `tensors` are loaded whole, recorded runs are small."""

    path: Path
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """What the file records; "weights" for a file that only serves others."""
        if self.facts.get("format") == FORMAT:
            return str(self.facts["kind"])
        return "weights"

    @classmethod
    def load(cls, path: Path) -> Recorded:
        """Raises OSError or safetensors' error for files that cannot be read."""
        with safe_open(path, "pt") as file:
            facts = {name: _decoded(value) for name, value in (file.metadata() or {}).items()}
            return cls(path, facts, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def weights(self) -> dict[str, Tensor]:
        """The file that the case names, from the same folder. Raises ValueError if it is not there."""
        path = self.path.parent / str(self.facts["weights"])
        if not path.is_file():
            raise ValueError(f"weights file '{path.name}' must lie beside the case '{self.path.name}'")
        return Recorded.load(path).tensors

    def number(self, name: str, default: float) -> float:
        """A tolerance of the file, or the usual one."""
        return float(self.facts.get(name, default))


def relative_error(value: Tensor, expected: Tensor) -> float:
    """|value − expected| / |expected|, L2 in float64; infinite where value is not finite or has another shape."""
    if value.shape != expected.shape:
        return float("inf")
    difference = (value.double() - expected.double()).norm()
    error = float(difference / expected.double().norm())
    return error if error == error else float("inf")


def _decoded(value: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(value)
    except ValueError:
        return value
