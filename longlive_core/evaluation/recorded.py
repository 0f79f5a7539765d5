"""A recorded run of the reference: one safetensors file with its numbers, weights beside it or inside.

A thinned file holds `call.{i}.flow` for the calls in its fact `kept_calls` only. Its facts `calls` and `attended` still
describe every call, and its `output` is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

FORMAT = "longlive-golden-1"
# The runs that every clone has; the archive of the Registry leaves them out.
REFERENCE_RUNS = Path(__file__).resolve().parents[2] / "tests" / "golden" / "reference"


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

    @property
    def calls(self) -> int:
        """How many model calls the recorded film took, those that a thinned file leaves out included."""
        if "kept_calls" in self.facts:
            return len(self.facts["calls"])
        return sum(name.startswith("call.") and name.endswith(".flow") for name in self.tensors)

    def keeps_call(self, index: int) -> bool:
        """Whether the file holds the flow of call `index`; only a thinned file leaves some out."""
        return index in self.facts.get("kept_calls", range(self.calls))

    def call_timesteps(self, index: int) -> Tensor | None:
        """The timesteps of call `index`, `[B, F]` or `[F]` for all of a batch; None if the film took fewer calls."""
        if index >= self.calls:
            return None
        if "kept_calls" in self.facts:
            return torch.tensor(self.facts["calls"][index]["t"])
        return self.tensors[f"call.{index}.t"]

    def number(self, name: str, default: float) -> float:
        """A tolerance of the file, or the usual one."""
        return float(self.facts.get(name, default))


def recorded_files(paths: Iterable[Path]) -> list[Path]:
    """The files to judge: each path itself, or, for a folder, its safetensors files by name.

    No path at all means the runs that every clone has. Raises ValueError where these, or a folder's files, are missing.
    """
    named = list(paths)
    if not named and not REFERENCE_RUNS.is_dir():
        raise ValueError(f"there are no recorded runs at {REFERENCE_RUNS}: name files or folders, or run from a clone")
    files: list[Path] = []
    for path in named or [REFERENCE_RUNS]:
        found = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"folder '{path}' has no .safetensors files")
        files += found
    return files


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
