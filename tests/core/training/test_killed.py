"""Runs that are killed at random moments go on with the losses of an uninterrupted run, to the bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.training import films
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.video import VideoWriter
from safetensors.torch import load_file

from ..video.films import SIZE, moving
from . import toy_mini, toy_vae

STEPS, KILLS = 24, 5
DMD = """
base = "{base}"
clips = 2
[trainer]
steps = {steps}
seed = 3
accumulation = 2
save_every = 1
[dmd]
size = [2, 2]
rank = 2
alpha = 4
steps = 2
[dmd.generator]
lr = 0.01
every = 3
ema_decay = 0.9
"""
AR = """
base = "{base}"
data = "{data}"
films = 50
validation_films = 10
blocks = 8
[trainer]
steps = {steps}
seed = 3
accumulation = 2
save_every = 1
validate_every = 10
[ar.error_recycling]
entries = 2
"""
LORA = """
base = "{base}"
data = "{data}"
size = [32, 32]
rank = 2
clips = 2
[trainer]
steps = {steps}
seed = 3
accumulation = 2
save_every = 1
[optimiser]
lr = 0.01
ema_decay = 0.9
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a model like the embedded one, of a few thousand weights."""
    return toy_mini.save_tiny(tmp_path / "tiny")


@pytest.fixture
def encoded(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of encoded films with random latents."""
    made = {str(film.film): film for film in toy_mini.random_films()}
    monkeypatch.setattr(films, "encode_film", lambda _vae, film, _shots: made[str(film)])
    assert films.encode_films(load_mini(base).vae, tmp_path / "films", 0, len(made))
    return tmp_path / "films"


def losses(folder: Path, phases: Sequence[str] = (".",)) -> list[dict[str, Any]]:
    """The log without times, of all phases of a run."""
    lines = (line for phase in phases for line in TrainingLog(folder / phase).lines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture
def environment(root: Path, tmp_path: Path) -> dict[str, str]:
    """Variables for processes of one thread that find our tree as `longlive`."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "longlive").symlink_to(root)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path / "tree")}


def kill_five_times(
    command: Sequence[object], folder: Path, environment: dict[str, str], phases: Sequence[str] = (".",)
) -> None:
    """Starts a command five times, kills each with everything that it started, then lets one finish.

    phases: folders of the logs. A run is killed at a random moment of a random step, each at a later step than the one
    before.
    """
    words = [sys.executable, *map(str, command)]
    rng = random.Random(11)
    for target in sorted(rng.sample(range(1, STEPS - 2), KILLS)):
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and len(losses(folder, phases)) < target:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03)
        assert process.poll() is None, "the run ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert len(losses(folder, phases)) < STEPS
    subprocess.run(words, env=environment, stdout=subprocess.DEVNULL, check=True)


def run_both(kind: str, config: str, environment: dict[str, str], tmp_path: Path) -> tuple[Path, Path]:
    """Runs a stage through the command line without and with kills; returns both folders."""
    path, whole, killed = tmp_path / f"{kind}.toml", tmp_path / "whole", tmp_path / "killed"
    path.write_text(config)
    assert main(["train", kind, str(path), "--out", str(whole)]) == 0
    kill_five_times(["-m", "longlive.longlive_core.cli", "train", kind, path, "--out", killed], killed, environment)
    assert len(losses(whole)) == STEPS
    assert losses(killed) == losses(whole)
    return whole, killed


def assert_same_file(one: Path, other: Path) -> None:
    """Two safetensors files hold equal tensors."""
    mine, theirs = load_file(one), load_file(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.slow
@pytest.mark.linux
def test_distillation(environment: dict[str, str], base: Path, tmp_path: Path) -> None:
    """`longlive train dmd`: the losses of both roles and the LoRA are those of an uninterrupted run."""
    whole, killed = run_both("dmd", DMD.format(base=base, steps=STEPS), environment, tmp_path)
    assert_same_file(whole / "lora.safetensors", killed / "lora.safetensors")
    ups = [value for name, value in load_file(killed / "lora.safetensors").items() if ".lora_B." in name]
    assert all(value.any() for value in ups)


@pytest.mark.slow
@pytest.mark.linux
def test_lora_on_videos(environment: dict[str, str], base: Path, tmp_path: Path) -> None:
    """`longlive train lora`: the losses and the LoRA are those of an uninterrupted run."""
    data = tmp_path / "clips"
    data.mkdir()
    for number in range(3):
        with VideoWriter(data / f"{number}.mp4", width=SIZE, height=SIZE, fps=24) as writer:
            writer.write(moving(61, seed=number))
        (data / f"{number}.txt").write_text(f"Shot 1 (29f): clip {number}\nShot 2: it waits")
    whole, killed = run_both("lora", LORA.format(base=base, data=data, steps=STEPS), environment, tmp_path)
    assert_same_file(whole / "lora.safetensors", killed / "lora.safetensors")


@pytest.mark.slow
@pytest.mark.linux
def test_teacher_forcing_with_error_recycling(
    environment: dict[str, str], base: Path, encoded: Path, tmp_path: Path
) -> None:
    """`longlive train ar`: losses, stored errors and the model are those of an uninterrupted run."""
    whole, killed = run_both("ar", AR.format(base=base, data=encoded, steps=STEPS), environment, tmp_path)
    assert losses(whole)[-1]["model.stored errors"] > 50
    assert any(line["model.injections"] for line in losses(whole))
    assert_same_file(whole / "transformer.safetensors", killed / "transformer.safetensors")


@pytest.mark.slow
@pytest.mark.linux
def test_mini_with_two_processes(environment: dict[str, str], tmp_path: Path) -> None:
    """The stage of LongLive Mini with two processes: losses are those of an uninterrupted run of two processes."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    script = Path(__file__).with_name("toy_mini.py")
    subprocess.run([sys.executable, script, whole, str(STEPS)], env=environment, check=True)
    kill_five_times([script, killed, STEPS], killed, environment)
    assert len(losses(whole)) == STEPS
    assert losses(killed) == losses(whole)


@pytest.mark.slow
@pytest.mark.linux
def test_the_phases_of_the_vae(environment: dict[str, str], tmp_path: Path) -> None:
    """The VAE's curriculum: the losses of all phases and the VAE are those of an uninterrupted run."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    script, phases = Path(__file__).with_name("toy_vae.py"), toy_vae.PHASES
    steps = STEPS // len(phases)
    subprocess.run([sys.executable, script, whole, str(steps)], env=environment, check=True)
    kill_five_times([script, killed, steps], killed, environment, phases)
    assert len(losses(whole, phases)) == STEPS
    assert losses(killed, phases) == losses(whole, phases)
    mine, theirs = torch.load(whole / "vae.pt"), torch.load(killed / "vae.pt")
    assert [name for name, value in mine.items() if not torch.equal(value, theirs[name])] == []
