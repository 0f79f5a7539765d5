"""The runs of the reference that every clone has: they agree, and a thinned file is judged honestly."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.evaluation.recorded import REFERENCE_RUNS, Recorded, recorded_files
from longlive.longlive_core.evaluation.verify import Result, verify_file
from safetensors.torch import save_file

CASES = sorted(path.stem for path in REFERENCE_RUNS.glob("*.safetensors"))
WEIGHTS = "weights_tiny"
LIMIT = 6_000_000


def changed(
    folder: Path,
    name: str,
    *,
    facts: dict[str, object] | None = None,
    tensor: str = "",
    without: str = "",
) -> Result:
    """The verdict on a copy of a case with other facts, with one number altered or with one tensor left out."""
    case = Recorded.load(REFERENCE_RUNS / f"{name}.safetensors")
    tensors = {key: value for key, value in case.tensors.items() if key != without}
    if tensor:
        tensors[tensor].view(-1)[-1] += 0.01
    described = {**case.facts, **(facts or {})}
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in described.items()}
    save_file(tensors, folder / case.path.name, metadata)
    (folder / f"{WEIGHTS}.safetensors").write_bytes((REFERENCE_RUNS / f"{WEIGHTS}.safetensors").read_bytes())
    return verify_file(folder / case.path.name)


@pytest.mark.parametrize("name", CASES)
def test_a_reference_run_agrees(name: str) -> None:
    """Each file that is committed agrees, or is the weights of the others."""
    result = verify_file(REFERENCE_RUNS / f"{name}.safetensors")
    assert result.verdict == ("skipped" if name == WEIGHTS else "ok"), result


def test_the_folder_is_small_and_described() -> None:
    """A clone stays small, and the README of the folder says what each file is."""
    assert sum(path.stat().st_size for path in REFERENCE_RUNS.iterdir() if path.is_file()) <= LIMIT
    readme = (REFERENCE_RUNS / "README.md").read_text("utf-8")
    assert [name for name in CASES if f"| `{name}` |" not in readme] == []


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("generate_roll8", "call.30.flow"),
        ("generate_roll8", "output"),
        ("generate_cfg3", "call.21.flow"),
        ("generate_i2v", "initial_latent"),
        ("generate_relrope_roll", "noise"),
        ("vae_a", "decoded"),
        ("nvfp4_vectors", "tiny.mse.dequant"),
    ],
)
def test_one_altered_number_of_a_thinned_file_fails(tmp_path: Path, name: str, tensor: str) -> None:
    """Leaving calls out does not loosen the check of what is left."""
    assert changed(tmp_path, name, tensor=tensor).verdict == "failed"


def test_another_prompt_fails_in_bf16(tmp_path: Path) -> None:
    """The wide limit of the bfloat16 replay still tells two prompts apart."""
    prompts = Recorded.load(REFERENCE_RUNS / "generate_bf16_steps2.safetensors").facts["prompts"]
    result = changed(tmp_path, "generate_bf16_steps2", facts={"prompts": [prompts[0]] * len(prompts)})
    assert result.verdict == "failed" and result.call_error is not None, result


def test_attended_frames_are_compared_in_calls_that_were_left_out(tmp_path: Path) -> None:
    """`attended` covers all calls, also those whose flow is not in the file."""
    case = Recorded.load(REFERENCE_RUNS / "generate_roll8.safetensors")
    assert 26 not in case.facts["kept_calls"]
    attended = [*case.facts["attended"]]
    attended[26] = attended[20]
    result = changed(tmp_path, "generate_roll8", facts={"attended": attended})
    assert (result.verdict, result.attended) == ("failed", False)


def test_a_kept_call_cannot_be_missing(tmp_path: Path) -> None:
    """A file whose facts promise a call has to hold it."""
    result = changed(tmp_path, "generate_cfg3", without="call.21.flow")
    assert result.verdict == "failed" and "call.21.flow" in result.note


def test_a_file_without_any_call_fails(tmp_path: Path) -> None:
    """Nothing compared is not agreement."""
    result = changed(tmp_path, "generate_steps2", facts={"kept_calls": []})
    assert result.verdict == "failed" and "no model call" in result.note


def test_timesteps_and_number_of_all_calls_are_compared(tmp_path: Path) -> None:
    """The facts of a call that was left out still hold."""
    calls = Recorded.load(REFERENCE_RUNS / "generate_steps2.safetensors").facts["calls"]
    other = [*calls[:3], {**calls[3], "t": [998.0, 998.0]}, *calls[4:]]
    assert "call.3 at timesteps" in changed(tmp_path, "generate_steps2", facts={"calls": other}).note
    assert "1 of 10 recorded calls" in changed(tmp_path, "generate_steps2", facts={"calls": [*calls, calls[-1]]}).note


def test_a_thinned_run_says_so() -> None:
    """The verdict names how much was compared."""
    assert "3 of 45 calls" in verify_file(REFERENCE_RUNS / "generate_roll8.safetensors").note
    assert "5 of 9 frames" in verify_file(REFERENCE_RUNS / "vae_a.safetensors").note


def test_verify_takes_folders_and_defaults_to_these_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`longlive verify` alone judges this folder; a folder means its files; a folder without files is an error."""
    assert recorded_files([]) == recorded_files([REFERENCE_RUNS]) == sorted(REFERENCE_RUNS.glob("*.safetensors"))
    assert main(["verify", str(tmp_path)]) == 2
    assert "has no .safetensors files" in capsys.readouterr().err


def test_the_script_cuts_the_same_bytes(golden: Callable[[str], Path], tmp_path: Path) -> None:
    """`subset.py` makes these files from the whole set. Skipped without it."""
    whole = golden("weights_quant").parent
    runpy.run_path(str(REFERENCE_RUNS / "subset.py"))["cut"](whole, tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == CASES
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (REFERENCE_RUNS / path.name).read_bytes(), path.name
