"""`--gpus N`: numbers of ranks that are refused, a film on two ranks, and ranks that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import pytest
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.cli.ranks import check_count
from longlive.longlive_core.evaluation.recorded import relative_error
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.history import read_blocks

SCRIPT = "Shot 1 (1 block): a large red circle on a plain blue background\n\nShot 2 (4 blocks): a green square"
RENDER = ("longlive.longlive_core.cli", "render", "script.txt", "-o", "film.mp4", "--steps", "2", "--gpus", "2")
END_SECONDS = 10.0
WAIT_SECONDS = 240.0

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, root: Path) -> Iterator[Start]:
    """Starts a command of this tree in a process of its own, in `tmp_path`; it is ended with the test."""
    (tmp_path / "longlive").symlink_to(root)
    (tmp_path / "script.txt").write_text(SCRIPT)
    started = list[subprocess.Popen[str]]()

    def begin(*arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-m", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stdout=pipe, stderr=pipe))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The ids of the other ranks that a render has started."""
    found = list[int]()
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def wait_until(what: Callable[[], bool], seconds: float) -> float:
    """Returns the seconds until `what` is true. Fails after a limit."""
    begun = monotonic()
    while not what():
        assert monotonic() < begun + seconds, "nothing happened"
        sleep(0.02)
    return monotonic() - begun


def is_gone(process: int) -> bool:
    """Whether a process has ended, or only waits for its parent to notice."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def blocks_in(folder: Path) -> int:
    """The number of blocks of a take on disk."""
    return len(list(folder.glob("shots/*/*/block_*.safetensors")))


def test_numbers_that_are_not_possible_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number of GPUs that no model can have, or that the machine lacks, is refused with the nearest that works."""
    script = tmp_path / "script.txt"
    script.write_text(SCRIPT)
    assert main(["render", str(script), "-o", str(tmp_path / "a.mp4"), "--gpus", "3"]) == 2
    assert "--gpus 3: the numbers of GPUs allowed are 1, 2, 4, 8" in capsys.readouterr().err
    assert main(["render", str(script), "-o", str(tmp_path / "a.mp4"), "--guidance", "2", "--split-guidance"]) == 2
    assert "1 rank cannot split guidance, whose two branches take half of them each; use" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [script]
    check_count(8, devices=0)
    for count, devices, nearest in ((3, 0, 2), (7, 0, 8), (0, 0, 1), (8, 6, 4), (2, 1, 1)):
        with pytest.raises(ValueError, match=f"--gpus {count}: .*; use {nearest}"):
            check_count(count, devices)


@pytest.mark.slow
@pytest.mark.linux
@pytest.mark.parametrize("victim", ["follower", "leader"])
def test_a_rank_that_is_killed_ends_all(tmp_path: Path, start: Start, victim: str) -> None:
    """All ranks end within seconds, rank 0 says which was killed, and the take goes on with other ranks."""
    take = tmp_path / "film.take"
    render = start(*RENDER)
    wait_until(lambda: blocks_in(take) > 0 or render.poll() is not None, WAIT_SECONDS)
    others = ranks_of(render)
    assert len(others) == 1
    os.kill(others[0] if victim == "follower" else render.pid, signal.SIGKILL)
    assert wait_until(lambda: render.poll() is not None and is_gone(others[0]), END_SECONDS) < END_SECONDS
    if victim == "follower":
        assert render.returncode == 2 and render.stderr is not None
        assert "rank 1 of 2 was ended by SIGKILL; finished blocks stay in the take" in render.stderr.read()
    done = blocks_in(take)
    assert 0 < done < 5
    assert main(["render", "--resume", str(take)]) == 0
    (tmp_path / "whole").mkdir()
    assert main(["render", str(tmp_path / "script.txt"), "-o", str(tmp_path / "whole/film.mp4"), "--steps", "2"]) == 0
    films = [[block for block, _ in read_blocks(Take.load(folder))] for folder in (take, tmp_path / "whole/film.take")]
    assert [block.index for block in films[0]] == [0, 1, 2, 3, 4]
    for ours, expected in zip(*films, strict=True):
        assert relative_error(ours.latents, expected.latents) <= 1e-2


@pytest.mark.slow
@pytest.mark.linux
def test_a_rank_that_is_gone_before_it_joins_ends_all(start: Start) -> None:
    """Rank 0 does not wait for a rank that cannot join, and leaves nothing behind."""
    render = start(*RENDER)
    wait_until(lambda: bool(ranks_of(render)), WAIT_SECONDS)
    os.kill(ranks_of(render)[0], signal.SIGKILL)
    wait_until(lambda: render.poll() is not None, WAIT_SECONDS)
    assert render.returncode == 2 and render.stderr is not None
    assert "rank 1 of 2 was ended by SIGKILL" in render.stderr.read()


@pytest.mark.slow
@pytest.mark.linux
def test_torchrun_starts_the_ranks(tmp_path: Path, start: Start) -> None:
    """Under torchrun rank 0 makes the film and the others end with it."""
    command = ["--nproc-per-node", "2", "-m", "longlive.longlive_core.cli", "render", "script.txt", "-o", "film.mp4"]
    run = start("torch.distributed.run", *command, "--steps", "2", "--no-take")
    _, errors = run.communicate(timeout=WAIT_SECONDS)
    assert run.returncode == 0 and (tmp_path / "film.mp4").is_file(), errors
