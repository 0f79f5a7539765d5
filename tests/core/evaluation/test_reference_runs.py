"""The recorded runs of the reference in every clone: they agree, and thinned files are verified strictly."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.evaluation.recorded import REFERENCE_RUNS, RecordedRun, recorded_files
from longlive.longlive_core.evaluation.verify import Result, verify_file
from safetensors.torch import save_file

CASES = sorted(path.stem for path in REFERENCE_RUNS.glob("*.safetensors"))
WEIGHTS = "weights_tiny"
LIMIT = 6_000_000


def changed(
    folder: Path,
    name: str,
    *,
    metadata: dict[str, object] | None = None,
    tensor: str = "",
    without: str = "",
) -> Result:
    """The result for a copy of a run with other metadata, with one number altered or with one tensor left out."""
    case = RecordedRun.load(REFERENCE_RUNS / f"{name}.safetensors")
    tensors = {key: value for key, value in case.tensors.items() if key != without}
    if tensor:
        tensors[tensor].view(-1)[-1] += 0.01
    described = {**case.metadata, **(metadata or {})}
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in described.items()}
    save_file(tensors, folder / case.path.name, metadata)
    (folder / f"{WEIGHTS}.safetensors").write_bytes((REFERENCE_RUNS / f"{WEIGHTS}.safetensors").read_bytes())
    return verify_file(folder / case.path.name)


@pytest.mark.parametrize("name", CASES)
def test_a_reference_run_agrees(name: str) -> None:
    """Each committed file agrees, or holds the weights of the others."""
    result = verify_file(REFERENCE_RUNS / f"{name}.safetensors")
    assert result.verdict == ("skipped" if name == WEIGHTS else "ok"), result


def test_the_folder_is_small_and_described() -> None:
    """The folder stays small, and its README describes each file."""
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
    """A single altered number fails, although the file leaves out other calls."""
    assert changed(tmp_path, name, tensor=tensor).verdict == "failed"


def test_another_prompt_fails_in_bf16(tmp_path: Path) -> None:
    """The wide tolerance of a bfloat16 replay does not accept another prompt."""
    prompts = RecordedRun.load(REFERENCE_RUNS / "generate_bf16_steps2.safetensors").metadata["prompts"]
    result = changed(tmp_path, "generate_bf16_steps2", metadata={"prompts": [prompts[0]] * len(prompts)})
    assert result.verdict == "failed" and result.call_error is not None, result


def test_attended_frames_are_compared_in_calls_that_were_left_out(tmp_path: Path) -> None:
    """Attended frames of all calls are compared, including calls whose flow is not in the file."""
    case = RecordedRun.load(REFERENCE_RUNS / "generate_roll8.safetensors")
    assert 26 not in case.metadata["kept_calls"]
    attended = [*case.metadata["attended"]]
    attended[26] = attended[20]
    result = changed(tmp_path, "generate_roll8", metadata={"attended": attended})
    assert (result.verdict, result.attended) == ("failed", False)


def test_a_kept_call_cannot_be_missing(tmp_path: Path) -> None:
    """A call that the metadata lists must be in the file."""
    result = changed(tmp_path, "generate_cfg3", without="call.21.flow")
    assert result.verdict == "failed" and "call.21.flow" in result.note


def test_a_file_without_any_call_fails(tmp_path: Path) -> None:
    """A file without the flow of any call fails, because nothing can be compared."""
    result = changed(tmp_path, "generate_steps2", metadata={"kept_calls": []})
    assert result.verdict == "failed" and "of no model call" in result.note


def test_timesteps_and_number_of_all_calls_are_compared(tmp_path: Path) -> None:
    """Timesteps and number of calls are compared for calls that the file leaves out, too."""
    calls = RecordedRun.load(REFERENCE_RUNS / "generate_steps2.safetensors").metadata["calls"]
    other = [*calls[:3], {**calls[3], "t": [998.0, 998.0]}, *calls[4:]]
    assert "call.3 at timesteps" in changed(tmp_path, "generate_steps2", metadata={"calls": other}).note
    assert (
        "1 of 10 recorded calls" in changed(tmp_path, "generate_steps2", metadata={"calls": [*calls, calls[-1]]}).note
    )


def test_a_thinned_run_says_so() -> None:
    """The note of a thinned file names how much was compared."""
    assert "3 of 45 calls" in verify_file(REFERENCE_RUNS / "generate_roll8.safetensors").note
    assert "5 of 9 frames" in verify_file(REFERENCE_RUNS / "vae_a.safetensors").note


def test_verify_takes_folders_and_defaults_to_these_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`longlive verify` reads this folder by default, all files of a named folder, and refuses an empty folder."""
    assert recorded_files([]) == recorded_files([REFERENCE_RUNS]) == sorted(REFERENCE_RUNS.glob("*.safetensors"))
    assert main(["verify", str(tmp_path)]) == 2
    assert "has no .safetensors files" in capsys.readouterr().err


def test_the_script_cuts_the_same_bytes(golden: Callable[[str], Path], tmp_path: Path) -> None:
    """`subset.py` writes these files from the complete set. Skipped without that set."""
    whole = golden("weights_quant").parent
    runpy.run_path(str(REFERENCE_RUNS / "subset.py"))["cut"](whole, tmp_path)
    assert sorted(path.stem for path in tmp_path.iterdir()) == CASES
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (REFERENCE_RUNS / path.name).read_bytes(), path.name
