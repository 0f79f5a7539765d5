"""Verification of recorded runs of the reference: correct files agree and altered files fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.evaluation.recorded import RecordedRun, relative_error
from longlive.longlive_core.evaluation.verify import TOLERANCE, Result, verify_file
from longlive.longlive_core.memory import quantized_pool
from safetensors.torch import save_file
from torch import Tensor

EXACT = [
    "batch2", "cfg3", "clean_recache", "cut_block1", "i2v", "multishot3", "nosink_roll", "relrope_roll", "roll8",
    "single3", "sink_only_roll", "steps2", "tscale",
]  # fmt: skip
# The rounding of bf16 depends on the CPU's kernels, so that the tolerance in each file decides.
REPLAYED = ("bf16_q", "kvquant", "kvquant_nosmooth", "w4a4", "w4a4_kvquant")


@pytest.mark.parametrize("name", EXACT)
def test_float32_runs_agree_in_every_call(golden: Callable[[str], Path], name: str) -> None:
    """The film, every model call and the attended frames of a float32 run agree."""
    result = verify_file(golden(f"generate_{name}"))
    assert result.verdict == "ok", result
    assert result.attended is True
    assert result.output_error is not None and result.output_error <= TOLERANCE
    assert result.call_error is not None and result.call_error <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLAYED)
def test_low_precision_agrees_in_replay(golden: Callable[[str], Path], name: str) -> None:
    """Runs in bf16, with an NVFP4 KV cache and with W4A4 agree; nearly all codes in the cache are the recorded ones."""
    result = verify_file(golden(f"generate_{name}"))
    assert result.verdict == "ok", result
    assert ("of the cached codes equal" in result.note) == ("kvquant" in name)


def test_nvfp4_is_exact_to_the_bit(golden: Callable[[str], Path]) -> None:
    """Quantised matrices equal the recorded ones bit for bit."""
    result = verify_file(golden("nvfp4_vectors"))
    assert result.verdict == "ok" and result.note in ("11 vectors bit-exact", "2 vectors bit-exact"), result


@pytest.mark.parametrize("part", ["values", "scales_blocked", "amax", "dequant"])
def test_a_changed_code_is_noticed(golden: Callable[[str], Path], tmp_path: Path, part: str) -> None:
    """One altered number fails and is named."""
    case = RecordedRun.load(golden("nvfp4_vectors"))
    tensors = {name: value.clone() for name, value in case.tensors.items()}
    tensors[f"tiny.mse.{part}"].view(-1)[0] += 1
    save_file(tensors, tmp_path / "case.safetensors", {"format": "longlive-golden-1", "kind": "nvfp4"})
    result = verify_file(tmp_path / "case.safetensors")
    assert result.verdict == "failed" and f"tiny.mse.{part}: 1 of" in result.note


def test_another_scale_rule_of_the_cache_is_noticed(
    golden: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A KV cache quantised with another scale rule has other codes than the recorded ones."""
    monkeypatch.setattr(quantized_pool, "RULE", "static_6")
    result = verify_file(golden("generate_kvquant_nosmooth"))
    assert result.verdict == "failed"


def test_teacher_forcing_agrees(golden: Callable[[str], Path]) -> None:
    """The teacher-forced pass agrees."""
    result = verify_file(golden("teacher_forcing"))
    assert result.verdict == "ok", result


def test_the_vae_agrees(golden: Callable[[str], Path]) -> None:
    """The VAE agrees."""
    result = verify_file(golden("vae_a"))
    assert result.verdict == "ok", result


@pytest.mark.parametrize("name", ["weights_tiny", "weights_4o6"])
def test_weights_alone_are_skipped_by_name(golden: Callable[[str], Path], name: str) -> None:
    """A file of weights is skipped, and the note names the reason."""
    result = verify_file(golden(name))
    assert result.verdict == "skipped" and "other files read" in result.note


def altered(
    golden: Callable[[str], Path], folder: Path, *, metadata: dict[str, object] | None = None, tensor: str = ""
) -> Result:
    """The result for a copy of a short run with one number or some metadata changed."""
    case = RecordedRun.load(golden("generate_steps2"))
    tensors = {name: value.clone() for name, value in case.tensors.items()}
    if tensor:
        tensors[tensor].view(-1)[0] += 0.01
    described = {**case.metadata, **(metadata or {})}
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in described.items()}
    save_file(tensors, folder / "case.safetensors", metadata)
    weights = folder / str(case.metadata["weights"])
    weights.write_bytes(golden(weights.stem).read_bytes())
    return verify_file(folder / "case.safetensors")


def test_a_run_may_be_in_any_folder(golden: Callable[[str], Path], tmp_path: Path) -> None:
    """A run and its weights agree in another folder."""
    assert altered(golden, tmp_path).verdict == "ok"


@pytest.mark.parametrize("tensor", ["output", "call.4.flow", "noise"])
def test_a_changed_number_fails(golden: Callable[[str], Path], tmp_path: Path, tensor: str) -> None:
    """One altered number of the film, of a call or of the noise fails."""
    assert altered(golden, tmp_path, tensor=tensor).verdict == "failed"


def test_other_attended_frames_fail(golden: Callable[[str], Path], tmp_path: Path) -> None:
    """Other attended frames fail even if all numbers agree."""
    attended = RecordedRun.load(golden("generate_steps2")).metadata["attended"]
    result = altered(golden, tmp_path, metadata={"attended": [*attended[:-1], [0, 1]]})
    assert (result.verdict, result.attended) == ("failed", False)
    assert result.output_error is not None and result.output_error <= TOLERANCE


def test_another_number_of_steps_fails_with_the_reason(golden: Callable[[str], Path], tmp_path: Path) -> None:
    """A run with other steps fails, and the note names the reason."""
    run = RecordedRun.load(golden("generate_steps2")).metadata["run"]
    result = altered(golden, tmp_path, metadata={"run": {**run, "steps": 3}})
    assert result.verdict == "failed" and "was not recorded" in result.note


def test_a_missing_weights_file_is_named(
    golden: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing weights file fails and is named, with the folders that it was looked for in."""
    monkeypatch.setenv("LONGLIVE_GOLDEN", str(tmp_path / "nowhere"))
    case = tmp_path / "case.safetensors"
    case.write_bytes(golden("generate_steps2").read_bytes())
    result = verify_file(case)
    assert result.verdict == "failed" and "'weights_tiny.safetensors' is neither beside" in result.note
    assert "nor in LONGLIVE_GOLDEN" in result.note and "nowhere" in result.note


@pytest.mark.parametrize("place", ["runs/train", "runs", "whole"])
def test_weights_are_beside_a_run_above_it_or_in_the_whole_set(
    golden: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A weights file may be beside its run, in the folder above it or in the folder that LONGLIVE_GOLDEN names."""
    monkeypatch.setenv("LONGLIVE_GOLDEN", str(tmp_path / "whole"))
    for folder in ("runs/train", "whole"):
        (tmp_path / folder).mkdir(parents=True)
    case = tmp_path / "runs" / "train" / "case.safetensors"
    case.write_bytes(golden("generate_steps2").read_bytes())
    (tmp_path / place / "weights_tiny.safetensors").write_bytes(golden("weights_tiny").read_bytes())
    assert verify_file(case).verdict == "ok"


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_an_unreadable_file_fails_with_a_reason(tmp_path: Path, content: bytes) -> None:
    """A file that is not safetensors fails, and the note is not empty."""
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    result = verify_file(path)
    assert (result.verdict, result.kind) == ("failed", "unreadable") and result.note


def test_a_file_that_is_not_there_fails_with_a_reason(tmp_path: Path) -> None:
    """A missing file fails and is named."""
    result = verify_file(tmp_path / "absent.safetensors")
    assert result.verdict == "failed" and "absent" in result.note


def test_a_later_kind_is_listed_as_skipped(tmp_path: Path) -> None:
    """A file of an unknown kind is skipped, and the note names the kind."""
    save_file({"x": torch.zeros(1)}, tmp_path / "new.safetensors", {"format": "longlive-golden-1", "kind": "audio"})
    result = verify_file(tmp_path / "new.safetensors")
    assert (result.verdict, result.kind) == ("skipped", "audio") and "'audio'" in result.note


@pytest.mark.parametrize(
    ("value", "expected"),
    [(torch.tensor([torch.nan, 1]), torch.ones(2)), (torch.ones(3), torch.ones(2))],
)
def test_nan_and_other_shapes_are_infinitely_wrong(value: Tensor, expected: Tensor) -> None:
    """The relative error of NaN and of another shape is infinite."""
    assert relative_error(value, expected) == float("inf")
