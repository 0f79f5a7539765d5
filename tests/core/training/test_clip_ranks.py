"""Training clips that several ranks encode: how they share them, and that the files are those of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.training.clip_ranks import pieces_of
from safetensors.torch import load_file

from ..cli.test_ranks import WAIT_SECONDS, ranks_of, wait_until
from ..cli.test_train_lora import write_clip
from ..parallel.ranks import run_ranks
from .clip_work import encoded
from .toy_mini import save_tiny

WORK = Path(__file__).with_name("clip_work.py")
LENGTHS = [29, 61, 33, 157]


def test_ranks_take_whole_clips_unless_windows_end_sooner() -> None:
    """A window of a short clip is nearly all of it; a long clip that is alone is shared by all ranks."""
    assert [[piece.video for piece in round_] for round_ in pieces_of([29, 61], 2)] == [[(0, 29), (0, 61)]]
    assert [len(round_) for round_ in pieces_of([113], 4)] == [1], "a window of 29 latent frames is the whole clip"
    (shared,) = pieces_of([1 + 4 * 95], 4)
    assert [piece.video[0] == 0 for piece in shared] == [True, False, False, False]
    assert max(end - start for start, end in (piece.video for piece in shared)) < 220
    assert [len(round_) for round_ in pieces_of([381] * 3, 4)] == [3], "three clips at once end sooner than one by one"


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_clips_have_the_bits_of_one_process(tmp_path: Path, size: int) -> None:
    """Clips of several sizes and lengths, also where fewer are left than ranks; after a stop the rest is encoded."""
    stopped = [29, 61, 33, 29, 0]
    found, *_ = run_ranks(size, "encode", tmp_path, [LENGTHS, stopped, [157]], file=WORK)
    for ours, lengths in zip(found, (LENGTHS, stopped[:4], [157]), strict=True):
        for latents, expected in zip(ours, encoded(lengths), strict=True):
            assert torch.equal(latents, expected)


@pytest.mark.slow
@pytest.mark.linux
def test_the_command_writes_the_files_of_one_process(root: Path, tmp_path: Path) -> None:
    """With `--encode-gpus 2` the cache has the same latents, to the bit, and another run with it encodes nothing."""
    base, clips = save_tiny(tmp_path / "tiny"), tmp_path / "clips"
    clips.mkdir()
    for name, frames in (("a", 64), ("b", 32), ("c", 160)):
        write_clip(clips / f"{name}.mp4", frames, "a red fox waits")
    (tmp_path / "longlive").symlink_to(root)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = ["train", "lora", str(clips), "--base", str(base), "--rank", "2", "--steps", "1", "--size", "32x32"]
    words += ["--blocks", "5", "--out"]
    program = [sys.executable, "-m", "longlive.longlive_core.cli", *words, str(tmp_path / "two"), "--encode-gpus", "2"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "encoded 3 clips of 3: c.mp4" in done.stdout
    assert main([*words, str(tmp_path / "one")]) == 0
    files = sorted((tmp_path / "one" / "cache").iterdir())
    assert len(files) == 3 == len(list((tmp_path / "two" / "cache").iterdir()))
    for file in files:
        assert torch.equal(load_file(tmp_path / "two" / "cache" / file.name)["latents"], load_file(file)["latents"])
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and "encoded" not in done.stdout


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize(
    ("kill", "code", "says"),
    [
        (True, 2, "rank 1 of 2 was ended by SIGKILL; clips that are encoded stay, and the same command goes on"),
        (False, 130, "stopped; the same command goes on, and encodes no clip again"),
    ],
)
def test_what_is_encoded_stays(root: Path, tmp_path: Path, kill: bool, code: int, says: str) -> None:
    """After a rank was killed, and after Ctrl-C: whole files are left, and one process goes on with them."""
    base, clips, cache = save_tiny(tmp_path / "tiny"), tmp_path / "clips", tmp_path / "out" / "cache"
    clips.mkdir()
    for number in range(12):
        write_clip(clips / f"{number:02}.mp4", 64, "a red fox waits")
    (tmp_path / "longlive").symlink_to(root)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = ["train", "lora", str(clips), "--base", str(base), "--rank", "2", "--steps", "1", "--size", "32x32"]
    words += ["--out", str(tmp_path / "out")]
    program = [sys.executable, "-m", "longlive.longlive_core.cli", *words, "--encode-gpus", "2"]
    with subprocess.Popen(program, env=environment, text=True, stdout=-1, stderr=-1) as process:
        wait_until(lambda: any(cache.glob("*.safetensors")) or process.poll() is not None, WAIT_SECONDS)
        os.kill(ranks_of(process)[0] if kill else process.pid, signal.SIGKILL if kill else signal.SIGINT)
        out, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == code and says in out + errors, out + errors
    kept = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert 0 < len(kept) < 12
    assert main(words) == 0
    assert len(list(cache.iterdir())) == 12
    assert kept == {name: (cache / name).stat().st_mtime_ns for name in kept}


def test_processes_that_are_not_possible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that no model can have, and torchrun, are refused with the option's name before the data are read."""
    words = ["train", "lora", str(tmp_path / "no"), "--out", str(tmp_path / "out"), "--encode-gpus"]
    assert main([*words, "3"]) == 2
    assert "--encode-gpus 3: the numbers of GPUs allowed are 1, 2, 4, 8" in capsys.readouterr().err
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    assert main([*words, "2"]) == 2
    assert "--encode-gpus 2 starts processes itself: start longlive without torchrun" in capsys.readouterr().err
