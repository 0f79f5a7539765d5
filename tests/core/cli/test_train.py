"""`longlive train`: settings files, the status of a run, and a stage that is trained on the terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.cli.train_run import KINDS, run_stage
from longlive.longlive_core.cli.training_line import TrainingLine, format_training
from longlive.longlive_core.training.log import TrainingProgress
from longlive.longlive_core.training.settings import RUNS

from ..training.toy import SETTINGS, ToyStage

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_init_prints_a_file_and_its_schema(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """`init` prints TOML with every table of the run; `--schema` prints a JSON schema with the same keys."""
    assert main(["train", "init", kind]) == 0
    text = capsys.readouterr().out
    defaults = RUNS[kind]()
    tables = {field.name for field in fields(defaults) if is_dataclass(getattr(defaults, field.name))}
    assert tables <= tomllib.loads(text).keys() and text.startswith(f"# Settings of `longlive train {kind}`")
    assert main(["train", "init", kind, "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert tomllib.loads(text).keys() <= schema["properties"].keys() and schema["title"] == f"longlive train {kind}"
    assert set(KINDS) == set(RUNS)


def test_a_stage_is_trained_and_its_status_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run prints its progress; `status` prints step, loss, pace, time left, validation and last checkpoint."""
    assert run_stage(ToyStage(), replace(SETTINGS, steps=4), tmp_path, CPU) == 0
    printed = capsys.readouterr().out
    assert "step 1/4  model loss " in printed and "s/step  0:00 left" in printed and "4 steps done" in printed
    assert run_stage(ToyStage(), replace(SETTINGS, steps=6), tmp_path, CPU) == 0
    assert "resumed after step 4" in capsys.readouterr().out
    (tmp_path / "loss.png").unlink()
    assert main(["train", "status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 6/6  model loss ") and "critic loss" in lines[0] and "0:00 left" in lines[0]
    assert lines[1].startswith("validation square ")
    assert lines[2] == f"last checkpoint: {tmp_path / 'checkpoints' / 'step-00000006'}"
    assert (tmp_path / "loss.png").is_file()


def test_status_of_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without a log is bad input."""
    assert main(["train", "status", str(tmp_path)]) == 2
    assert "no log.jsonl with a finished step" in capsys.readouterr().err


def test_ctrl_c_saves_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first Ctrl-C ends a run with a checkpoint and exit code 130; the same call resumes it."""

    def interrupt(step: int, loss: torch.Tensor) -> torch.Tensor:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    assert run_stage(ToyStage(spoil=interrupt), SETTINGS, tmp_path, CPU) == 130
    assert "stopped after step 2; the same command resumes the run" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002-1"]
    assert run_stage(ToyStage(), SETTINGS, tmp_path, CPU) == 0


def test_progress_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    """A line is printed at the first and the last step, and every ten seconds of training between."""
    line = TrainingLine()
    for step in range(1, 26):
        line.show(TrainingProgress(step, 25, {"model": 0.5}, pace=1.0))
    shown = [text.split()[1] for text in capsys.readouterr().out.splitlines()]
    assert shown == ["1/25", "11/25", "21/25", "25/25"]
    progress = TrainingProgress(120, 600, {"generator": 0.123456, "critic": 1.0}, pace=1.52)
    assert format_training(progress) == "step 120/600  generator loss 0.1235  critic loss 1  1.52 s/step  12:10 left"
