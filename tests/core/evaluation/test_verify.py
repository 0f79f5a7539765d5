"""Recorded runs of the reference, and that verification notices what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.evaluation.recorded import Recorded, relative_error
from longlive.longlive_core.evaluation.verify import TOLERANCE, Result, verify_file
from longlive.longlive_core.memory import quantized_pool
from safetensors.torch import save_file
from torch import Tensor

EXACT = [
    "batch2", "cfg3", "clean_recache", "cut_block1", "i2v", "multishot3", "nosink_roll", "relrope_roll", "roll8",
    "single3", "sink_only_roll", "steps2", "tscale",
]  # fmt: skip
# In bf16, whose rounding depends on the CPU's kernels: the files' own limits on the mean over replayed calls decide.
REPLAYED = ("bf16_q", "kvquant", "kvquant_nosmooth", "w4a4", "w4a4_kvquant")


@pytest.mark.parametrize("name", EXACT)
def test_float32_runs_agree_in_every_call(golden: Callable[[str], Path], name: str) -> None:
    result = verify_file(golden(f"generate_{name}"))
    assert result.verdict == "ok", result
    assert result.attended is True
    assert result.output_error is not None and result.output_error <= TOLERANCE
    assert result.call_error is not None and result.call_error <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLAYED)
def test_low_precision_agrees_in_replay(golden: Callable[[str], Path], name: str) -> None:
    """bf16, NVFP4 memory, NVFP4 weights with rounded activations; nearly all codes in memory are the recorded ones."""
    result = verify_file(golden(f"generate_{name}"))
    assert result.verdict == "ok", result
    assert ("of the cached codes equal" in result.note) == ("kvquant" in name)


def test_nvfp4_is_exact_to_the_bit(golden: Callable[[str], Path]) -> None:
    result = verify_file(golden("nvfp4_vectors"))
    assert result.verdict == "ok" and result.note in ("11 vectors bit-exact", "2 vectors bit-exact"), result


@pytest.mark.parametrize("part", ["values", "scales_blocked", "amax", "dequant"])
def test_a_changed_code_is_noticed(golden: Callable[[str], Path], tmp_path: Path, part: str) -> None:
    case = Recorded.load(golden("nvfp4_vectors"))
    tensors = {name: value.clone() for name, value in case.tensors.items()}
    tensors[f"tiny.mse.{part}"].view(-1)[0] += 1
    save_file(tensors, tmp_path / "case.safetensors", {"format": "longlive-golden-1", "kind": "nvfp4"})
    result = verify_file(tmp_path / "case.safetensors")
    assert result.verdict == "failed" and f"tiny.mse.{part}: 1 of" in result.note


def test_another_memory_is_noticed(golden: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """NVFP4 keys kept by another scale rule than the recorded ones are other codes."""
    monkeypatch.setattr(quantized_pool, "RULE", "static_6")
    result = verify_file(golden("generate_kvquant_nosmooth"))
    assert result.verdict == "failed"


def test_teacher_forcing_agrees(golden: Callable[[str], Path]) -> None:
    result = verify_file(golden("teacher_forcing"))
    assert result.verdict == "ok", result


def test_the_vae_agrees(golden: Callable[[str], Path]) -> None:
    result = verify_file(golden("vae_a"))
    assert result.verdict == "ok", result


@pytest.mark.parametrize("name", ["weights_tiny", "weights_4o6"])
def test_weights_alone_are_skipped_by_name(golden: Callable[[str], Path], name: str) -> None:
    result = verify_file(golden(name))
    assert result.verdict == "skipped" and "read by the cases" in result.note


def spoilt(
    golden: Callable[[str], Path], folder: Path, *, facts: dict[str, object] | None = None, tensor: str = ""
) -> Result:
    """The verdict on a copy of a short case with one thing changed."""
    case = Recorded.load(golden("generate_steps2"))
    tensors = {name: value.clone() for name, value in case.tensors.items()}
    if tensor:
        tensors[tensor].view(-1)[0] += 0.01
    described = {**case.facts, **(facts or {})}
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in described.items()}
    save_file(tensors, folder / "case.safetensors", metadata)
    weights = folder / str(case.facts["weights"])
    weights.write_bytes(golden(weights.stem).read_bytes())
    return verify_file(folder / "case.safetensors")


def test_a_case_may_lie_anywhere(golden: Callable[[str], Path], tmp_path: Path) -> None:
    assert spoilt(golden, tmp_path).verdict == "ok"


@pytest.mark.parametrize("tensor", ["output", "call.4.flow", "noise"])
def test_a_changed_number_fails(golden: Callable[[str], Path], tmp_path: Path, tensor: str) -> None:
    assert spoilt(golden, tmp_path, tensor=tensor).verdict == "failed"


def test_other_attended_frames_fail(golden: Callable[[str], Path], tmp_path: Path) -> None:
    attended = Recorded.load(golden("generate_steps2")).facts["attended"]
    result = spoilt(golden, tmp_path, facts={"attended": [*attended[:-1], [0, 1]]})
    assert (result.verdict, result.attended) == ("failed", False)
    assert result.output_error is not None and result.output_error <= TOLERANCE


def test_another_number_of_steps_fails_with_the_reason(golden: Callable[[str], Path], tmp_path: Path) -> None:
    run = Recorded.load(golden("generate_steps2")).facts["run"]
    result = spoilt(golden, tmp_path, facts={"run": {**run, "steps": 3}})
    assert result.verdict == "failed" and "was not recorded" in result.note


def test_a_missing_weights_file_is_named(golden: Callable[[str], Path], tmp_path: Path) -> None:
    case = tmp_path / "case.safetensors"
    case.write_bytes(golden("generate_steps2").read_bytes())
    result = verify_file(case)
    assert result.verdict == "failed" and "'weights_tiny.safetensors' must lie beside" in result.note


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_an_unreadable_file_fails_with_a_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    result = verify_file(path)
    assert (result.verdict, result.kind) == ("failed", "unreadable") and result.note


def test_a_file_that_is_not_there_fails_with_a_reason(tmp_path: Path) -> None:
    result = verify_file(tmp_path / "absent.safetensors")
    assert result.verdict == "failed" and "absent" in result.note


def test_a_later_kind_is_listed_as_skipped(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "new.safetensors", {"format": "longlive-golden-1", "kind": "audio"})
    result = verify_file(tmp_path / "new.safetensors")
    assert (result.verdict, result.kind) == ("skipped", "audio") and "'audio'" in result.note


@pytest.mark.parametrize(
    ("value", "expected"),
    [(torch.tensor([torch.nan, 1]), torch.ones(2)), (torch.ones(3), torch.ones(2))],
)
def test_nan_and_other_shapes_are_infinitely_wrong(value: Tensor, expected: Tensor) -> None:
    assert relative_error(value, expected) == float("inf")
