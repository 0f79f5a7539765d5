"""Recorded runs of the reference: one safetensors file each, with the model's weights in the file or next to it.

A thinned file holds `call.{i}.flow` only for the calls that its fact `kept_calls` lists. Its facts `calls` and
`attended` still describe every call, and its `output` is complete.
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
# The recorded runs of the repository; the archive in ComfyUI's Registry leaves them out.
REFERENCE_RUNS = Path(__file__).resolve().parents[2] / "tests" / "golden" / "reference"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded run in host memory. `facts` are the file's metadata; values that are JSON are decoded."""

    path: Path
    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """The kind of run; "weights" for a file that only holds weights for other files."""
        return str(self.facts["kind"]) if self.facts.get("format") == FORMAT else "weights"

    @classmethod
    def load(cls, path: Path) -> Recorded:
        """Load a file. Raises OSError or SafetensorError if it cannot be read."""
        with safe_open(path, "pt") as file:
            facts = {name: _decode_fact(value) for name, value in (file.metadata() or {}).items()}
            return cls(path, facts, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def weights(self) -> dict[str, Tensor]:
        """Load the weights file that the run names from the run's folder. Raises ValueError if it is missing."""
        path = self.path.parent / str(self.facts["weights"])
        if not path.is_file():
            raise ValueError(f"weights file '{path.name}' must lie beside the case '{self.path.name}'")
        return Recorded.load(path).tensors

    def timesteps(self) -> list[Tensor]:
        """Timesteps of every model call of the film, `[B, F]` or `[F]`, including calls that a thinned file omits."""
        if "kept_calls" in self.facts:
            return [torch.tensor(call["t"]) for call in self.facts["calls"]]
        calls = sum(name.startswith("call.") and name.endswith(".flow") for name in self.tensors)
        return [self.tensors[f"call.{index}.t"] for index in range(calls)]

    def number(self, name: str, default: float) -> float:
        """A numeric fact, such as a tolerance; `default` if the file does not set it."""
        return float(self.facts.get(name, default))


def recorded_files(paths: Iterable[Path]) -> list[Path]:
    """List the files to verify: files as given, and the .safetensors files of folders, sorted by name.

    Without paths, the recorded runs of the repository are listed. Raises ValueError if these are missing or if a folder
    has no .safetensors files.
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
    """Relative L2 error |value − expected| / |expected| in float64; infinite for non-finite values and other shapes."""
    if value.shape != expected.shape:
        return float("inf")
    difference = (value.double() - expected.double()).norm()
    error = float(difference / expected.double().norm())
    return error if error == error else float("inf")


def _decode_fact(value: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(value)
    except ValueError:
        return value
