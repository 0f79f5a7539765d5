"""Runs recorded by this implementation when it agreed with the reference: today's results equal them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from longlive.longlive_core.evaluation.recorded import RecordedRun, relative_error
from longlive.longlive_core.evaluation.verify import TOLERANCE, verify_file
from safetensors.torch import save_file

FOLDER = Path(__file__).resolve().parents[2] / "golden"
WEIGHTS = "weights_small"
CASES = [
    "generate_roll", "generate_relative_rope", "generate_guidance", "generate_image", "generate_clean_recache",
    "teacher_forcing", "vae", "nvfp4",
]  # fmt: skip


def test_every_file_is_judged_here() -> None:
    """A test names each file, so that a missing file is noticed, and all files together stay small."""
    files = list(FOLDER.glob("*.safetensors"))
    assert sorted(path.stem for path in files) == sorted([*CASES, WEIGHTS])
    assert sum(path.stat().st_size for path in files) < 1.5e6


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_run_agrees(name: str) -> None:
    """Each recorded run agrees with today's implementation, and so do the attended frames of films."""
    result = verify_file(FOLDER / f"{name}.safetensors")
    assert result.verdict == "ok", result
    assert result.attended is (True if name.startswith("generate") else None)


def test_weights_are_skipped_with_the_reason() -> None:
    """A file of weights is skipped, and the note names the reason."""
    result = verify_file(FOLDER / f"{WEIGHTS}.safetensors")
    assert result.verdict == "skipped" and "other files read" in result.note


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("generate_guidance", "output"),
        ("generate_guidance", "call.7.flow"),
        ("generate_image", "initial_latent"),
        ("teacher_forcing", "tf.flow"),
        ("vae", "decoded"),
        ("vae", "encoded"),
        ("nvfp4", "x.static_4.dequant"),
    ],
)
def test_one_altered_number_fails(tmp_path: Path, name: str, tensor: str) -> None:
    """A file with one value changed by 0.01 fails."""
    case = RecordedRun.load(FOLDER / f"{name}.safetensors")
    case.tensors[tensor].view(-1)[0] += 0.01
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in case.metadata.items()}
    save_file(case.tensors, tmp_path / case.path.name, metadata)
    weights = FOLDER / f"{WEIGHTS}.safetensors"
    (tmp_path / weights.name).write_bytes(weights.read_bytes())
    assert verify_file(tmp_path / case.path.name).verdict == "failed"


def test_recording_again_gives_the_same_runs(tmp_path: Path) -> None:
    """`record.py` writes these files: the same metadata, and the same numbers within the tolerance."""
    runpy.run_path(str(FOLDER / "record.py"))["record"](tmp_path)
    for path in FOLDER.glob("*.safetensors"):
        old, new = RecordedRun.load(path), RecordedRun.load(tmp_path / path.name)
        assert new.metadata == old.metadata and new.tensors.keys() == old.tensors.keys()
        errors = {name: relative_error(value, old.tensors[name]) for name, value in new.tensors.items() if value.any()}
        assert max(errors.values()) <= TOLERANCE, max(errors, key=errors.__getitem__)
