"""Recorded runs of the reference: one safetensors file each, with weights inside or in another file.

A thinned file holds the tensor `call.{i}.flow` only for the calls that its metadata lists under `kept_calls`. Its
metadata `calls` and `attended` still describe every call, and its tensor `output` is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

FORMAT = "longlive-golden-1"
TRAINING_FORMAT = "longlive-golden-train-1"
# Names the folder of the whole set of recorded runs; by default the set is in `shared/golden` beside the repository.
GOLDEN_VARIABLE = "LONGLIVE_GOLDEN"
# The runs in every clone of the repository. The archive in the ComfyUI Registry does not contain them.
REFERENCE_RUNS = Path(__file__).resolve().parents[2] / "tests" / "golden" / "reference"


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A file of a recorded run: its metadata, whose JSON values are decoded, and all its tensors."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """What the file records, or "weights" for a file that other runs read their weights from."""
        return str(self.metadata["kind"]) if self.format in (FORMAT, TRAINING_FORMAT) else "weights"

    @property
    def format(self) -> str:
        """The format that the file says it has: `FORMAT`, `TRAINING_FORMAT` or anything else."""
        return str(self.metadata.get("format", ""))

    @classmethod
    def load(cls, path: Path) -> RecordedRun:
        """Reads a file. Raises OSError or SafetensorError if it cannot be read."""
        with safe_open(path, "pt") as file:
            metadata = {name: _decoded(value) for name, value in (file.metadata() or {}).items()}
            return cls(path, metadata, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118

    def weights(self) -> dict[str, Tensor]:
        """Tensors of the weights file that the run names. Raises ValueError if it is missing."""
        return RecordedRun.load(self.weights_path()).tensors

    def weights_path(self) -> Path:
        """The weights file that the run names: beside it, in its parent folder or in the whole set of recorded runs.

        Raises ValueError if it is in none of them.
        """
        name = str(self.metadata["weights"])
        folder = self.path.resolve().parent
        folders = (folder, folder.parent, golden_folder())
        for candidate in folders:
            if (candidate / name).is_file():
                return candidate / name
        raise ValueError(
            f"weights file '{name}' is neither beside '{self.path.name}' nor in the folder above it nor in "
            f"{GOLDEN_VARIABLE} ({folders[-1]})"
        )

    def timesteps(self) -> list[Tensor]:
        """Timesteps of each model call, `[B, F]`, or `[F]` if the whole batch shares them, including omitted calls."""
        if "kept_calls" in self.metadata:
            return [torch.tensor(call["t"]) for call in self.metadata["calls"]]
        calls = sum(name.startswith("call.") and name.endswith(".flow") for name in self.tensors)
        return [self.tensors[f"call.{index}.t"] for index in range(calls)]

    def number(self, name: str, default: float) -> float:
        """A number from the metadata, such as a tolerance, or `default`."""
        return float(self.metadata.get(name, default))


def golden_folder() -> Path:
    """The folder of the whole set of recorded runs, which need not exist: see `GOLDEN_VARIABLE`."""
    return Path(os.environ.get(GOLDEN_VARIABLE) or Path(__file__).resolve().parents[3] / "shared" / "golden")


def recorded_files(paths: Iterable[Path]) -> list[Path]:
    """The files to verify: each file of `paths`, and the safetensors files of each folder of `paths`, sorted.

    Without paths, these are the runs in every clone. Raises ValueError if they are missing, or if a folder has no
    safetensors files.
    """
    named = list(paths)
    if not named and not REFERENCE_RUNS.is_dir():
        raise ValueError(f"there are no recorded runs in {REFERENCE_RUNS}: name files or folders, or run from a clone")
    files: list[Path] = []
    for path in named or [REFERENCE_RUNS]:
        found = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not found:
            raise ValueError(f"folder '{path}' has no .safetensors files")
        files += found
    return files


def check_recorded(paths: Iterable[Path]) -> None:
    """Raises ValueError for a named file that is neither a recorded run nor the weights of another named one.

    Files that cannot be read are left to `verify_file`, which says why.
    """
    metadata: dict[Path, dict[str, Any]] = {}
    for path in paths:
        if path.is_file():
            with suppress(SafetensorError, OSError), safe_open(path, "pt") as file:
                metadata[path] = {name: _decoded(value) for name, value in (file.metadata() or {}).items()}
        elif path.exists() and not path.is_dir():
            raise ValueError(f"'{path}' is no regular file; name a recorded run or a folder of them")
    weights = {str(about.get("weights")) for about in metadata.values()}
    strange = [
        path
        for path, about in metadata.items()
        if about.get("format") not in (FORMAT, TRAINING_FORMAT) and path.name not in weights
    ]
    if strange:
        raise ValueError(
            f"{', '.join(map(str, strange))}: no recorded run, since its metadata has no format {FORMAT} or "
            f"{TRAINING_FORMAT}; name files such as those in tests/golden/reference"
        )


def relative_error(value: Tensor, expected: Tensor) -> float:
    """|value − expected| / |expected|, L2 in float64; infinite for another shape and if the result is NaN."""
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
