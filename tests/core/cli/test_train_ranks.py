"""`longlive train ar` under torchrun: ranks that share films, and what happens when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.training import films
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.training.trainer import CHECKPOINTS
from safetensors.torch import load_file

from ..training import toy_mini

AR = """
base = "{base}"
data = "{data}"
films = 50
validation_films = 4
blocks = 7
[trainer]
steps = {steps}
accumulation = 2
save_every = 1
validate_every = 2
shard = true
[optimiser]
lr = 0.01
ema_decay = 0.9
ema_start = 1
[ar]
checkpointing = true
"""
STEPS = 6


def losses(folder: Path) -> list[dict[str, object]]:
    """The log without times."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in TrainingLog(folder).lines()]


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that a process started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in found.split()]


def test_a_sequence_without_torchrun_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the command that starts as many processes."""
    (tmp_path / "ar.toml").write_text("[trainer]\nsteps = 1")
    assert main(["train", "ar", str(tmp_path / "ar.toml"), "--out", str(tmp_path / "out"), "--sequence", "2"]) == 2
    assert "start it with `torchrun --nproc-per-node 2 -m longlive.longlive_core.cli train" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.linux
def test_a_rank_of_torchrun_is_killed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ranks end within seconds, and the same command goes on: log and model are those of an uninterrupted run."""
    base, data = toy_mini.save_tiny(tmp_path / "tiny"), tmp_path / "films"
    made = {str(film.film): film for film in toy_mini.random_films()}
    monkeypatch.setattr(films, "encode_film", lambda _vae, film, _shots: made[str(film)])
    assert films.encode_films(load_mini(base).vae, data, 0, len(made))
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "longlive").symlink_to(root)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path / "tree")}
    config = tmp_path / "ar.toml"
    config.write_text(AR.format(base=base, data=data, steps=STEPS))

    def start(out: Path) -> subprocess.Popen[bytes]:
        words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "longlive.longlive_core.cli"]
        words += ["train", "ar", str(config), "--out", str(out), "--sequence", "2"]
        return subprocess.Popen(
            [sys.executable, *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    assert start(tmp_path / "whole").wait(120) == 0
    out = tmp_path / "killed"
    for step in (1, 3):
        process = start(out)
        while len(losses(out)) < step:
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.005)
        ranks = children(process)
        os.kill(ranks[step % 2], signal.SIGKILL)
        assert process.wait(10) != 0
        assert not [pid for pid in ranks if Path(f"/proc/{pid}").exists()]
        assert len(losses(out)) < STEPS
    assert start(out).wait(120) == 0
    assert losses(out) == losses(tmp_path / "whole") and len(losses(out)) == STEPS
    files = list((out / CHECKPOINTS).glob("*/*.distcp"))
    assert len(files) == 2 * len(list((out / CHECKPOINTS).iterdir())), "each rank writes its shards"
    one, other = (load_file(folder / "transformer.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(one[name], value) for name, value in other.items())
    start_weights = load_file(base / "transformer.safetensors")
    assert not torch.equal(one["head.head.weight"], start_weights["head.head.weight"])
