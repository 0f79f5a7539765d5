"""`longlive work`: every film of a folder is made once, by whoever comes first, and one that fails stops no other."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.render.work import WorkFolder
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.holder import Holder
from longlive.longlive_core.take.lock import TakeLock

from ..takes import after, latents, make_mini, same

SCRIPT = "Shot 1 (1 block): the hero\nShot 2 (1 block): the other @seed={seed}\n"
GIVEN = {"size": "32x32", "steps": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mini")
    make_mini().save(folder, torch.float32)
    return folder


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder with two scripts."""
    (tmp_path / "films").mkdir()
    for number in (1, 2):
        (tmp_path / "films" / f"film {number}.txt").write_text(SCRIPT.format(seed=number))
    return tmp_path / "films"


def words(folder: Path, model: Path, *more: str) -> list[str]:
    return ["work", str(folder), "--model", str(model), "--size", "32x32", "--steps", "2", *more]


def made_alone(script: Path, output: Path, model: Path) -> Take:
    job = Job(RenderSettings.of(script, output, {**GIVEN, "model": str(model)}))
    assert job.run() and job.take is not None
    return job.take


def moments(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_scripts_and_takes_that_were_begun_become_films(
    capsys: pytest.CaptureFixture[str], films: Path, model: Path, tmp_path: Path
) -> None:
    """What is made is left alone, a film that was begun goes on with the settings of its take, and all equal films
    made alone."""
    settings = {**GIVEN, "seed": 9, "model": str(model)}
    begun = RenderSettings.of(films / "film 2.txt", films / "begun.mp4", settings)
    assert not Job(begun, should_stop=after(3)).run()
    (films / "mine.mp4").write_bytes(b"a video of one's own")
    (films / "mine.txt").write_text("the hero")
    assert main(words(films, model)) == 0
    out = capsys.readouterr().out
    assert [line.partition(":")[0] for line in out.splitlines() if "made at" in line] == [
        str(films / f"{name}.mp4") for name in ("begun", "film 1", "film 2")
    ]  # fmt: skip
    assert out.endswith("3 films made here\n")
    for number in (1, 2):
        alone, take = (
            made_alone(films / f"film {number}.txt", tmp_path / f"{number}.mp4", model),
            Take.load(films / f"film {number}.take"),
        )
        assert all(same(latents(take), latents(alone))) and take.film.read_bytes() == alone.film.read_bytes()
    assert Take.load(films / "begun.take").settings["seed"] == 9 and (films / "mine.mp4").stat().st_size == 20
    before = moments(films)
    assert main(words(films, model)) == 0
    assert moments(films) == before and "0 films made here" in capsys.readouterr().out


@pytest.mark.slow
def test_a_film_that_fails_is_said_once_and_stops_no_other(
    capsys: pytest.CaptureFixture[str], films: Path, model: Path
) -> None:
    """Its reason is beside it, no worker tries it again before its script changes, and the exit code tells of it."""
    (films / "bad.txt").write_text("Shot 1 (0 blocks): the hero\n")
    (films / "torn.take").mkdir()
    (films / "torn.take" / "take.json").write_text("{")
    assert main(words(films, model)) == 1
    out, err = capsys.readouterr()
    assert "2 films made here, 2 not made:" in out and "bad: line 1, column 9: a shot of 0 blocks" in err
    assert "cannot be read as a take" in out
    assert not (films / "bad.take").exists() and "a shot of 0 blocks" in (films / "bad.failed").read_text()
    assert main(words(films, model)) == 1
    out, err = capsys.readouterr()
    assert "0 films made here, 2 not made:" in out and "0 blocks" in out and err == ""
    (films / "bad.txt").write_text("Shot 1 (1 block): the hero\n")
    assert main(words(films, model)) == 1
    assert "1 film made here, 1 not made:" in capsys.readouterr().out and not (films / "bad.failed").exists()


def test_settings_that_no_film_can_have_are_refused_first(
    capsys: pytest.CaptureFixture[str], films: Path, model: Path
) -> None:
    """A wrong option is no fault of the films: nothing is written, and the exit code is that of bad input."""
    before = moments(films)
    assert main([*words(films, model), "--window", "9"]) == 2
    assert "window 9 is not a multiple of the block" in capsys.readouterr().err
    assert main(["work", str(films / "none")]) == 2
    assert "is not a folder; name one with scripts" in capsys.readouterr().err
    assert moments(films) == before


def test_a_film_is_decided_on_under_its_lock(films: Path) -> None:
    """A film that another process holds is left to it, and one that it has made meanwhile is not made again."""
    mini = make_mini()
    work, slow = (WorkFolder(films, GIVEN, mini=mini) for _ in range(2))
    take, other = tuple(work.unfinished())
    assert tuple(slow.unfinished()) == (take, other)
    lock = work.claim(take)
    assert lock is not None and slow.claim(take) is None
    with lock:
        assert work.job(take, lock).run()
        work.settle(take)
        assert slow.claim(take) is None
    assert slow.claim(take) is None and tuple(slow.unfinished()) == (other,) == tuple(work.unfinished())


def test_a_matter_of_this_machine_is_left_to_others(films: Path) -> None:
    """A full disk or too small a card fails the film for this process only."""
    work = WorkFolder(films, GIVEN, mini=make_mini())
    take, other = tuple(work.unfinished())
    with TakeLock(take):
        assert work.fail(take, OSError(28, "No space left on device")) == "No space left on device"
    assert tuple(work.unfinished()) == (other,) and work.left == {take: "No space left on device"}
    assert list(films.glob("*.failed")) == [] and not work.failed
    assert tuple(WorkFolder(films, GIVEN).unfinished()) == (take, other)


@pytest.mark.slow
@pytest.mark.parametrize("waits", [False, True])
def test_ctrl_c_ends_it_and_keeps_what_is_finished(films: Path, model: Path, root: Path, waits: bool) -> None:
    """In a film, whose finished blocks stay, or while it waits for other processes: code 130, and soon."""
    (films / "film 1.txt").write_text("Shot 1 (400 blocks): the hero\n")
    (films / "film 2.txt").unlink()
    take = films / "film 1.take"
    if waits:
        take.mkdir()
        (take / "in_use.1").write_text(replace(Holder.of_this_process(), machine="far away").text)
    (films.parent / "longlive").symlink_to(root)
    program = [sys.executable, "-m", "longlive.longlive_core.cli", *words(films, model, "--threads", "1", "--watch")]
    environment = {**os.environ, "PYTHONPATH": str(films.parent)}
    with subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        if waits:
            assert process.stdout is not None and process.stdout.readline() == "waiting for 1 film of other processes\n"
        while not waits and not len(list(take.rglob("block_*.safetensors"))) > 1:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        out, err = process.communicate(timeout=30)
        took = time.monotonic() - asked
    assert process.returncode == 130 and err.count("Traceback") == 0, err
    assert took < 10.0  # a second of its own; a machine that is busy with other things may stretch it
    assert "stopped: the same command makes the rest" in out
    if not waits:
        assert Take.load(take).block_count() > 1 and not list(take.glob("in_use*"))


KILLED = """
    import os, random, signal, sys, time, types
    from argparse import Namespace
    from pathlib import Path

    root, folder, model, kills = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    independent = sys.argv[5:] == ["independent"]
    package = types.ModuleType("longlive")
    package.__path__ = [root]
    sys.modules["longlive"] = package
    import torch
    from longlive.longlive_core.cli.console import job_hooks
    from longlive.longlive_core.cli.work import Worker
    from longlive.longlive_core.film import sample_ahead, take_store
    from longlive.longlive_core.mini import load_mini
    from longlive.longlive_core.render.work import WorkFolder

    torch.set_num_threads(1)
    mini, save = load_mini(Path(model)), take_store.save_block
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def logged(path, block, *more):
        digest = save(path, block, *more)
        os.write(log, f"{path.relative_to(folder)}\\n".encode())
        return digest

    take_store.save_block = sample_ahead.save_block = logged

    def work():
        process = os.fork()
        if process == 0:
            folder_work = WorkFolder(folder, {"size": "32x32", "steps": 2, "independent_shots": independent}, mini=mini)
            with job_hooks(Namespace(leader=None)) as (bar, hooks):
                Worker(folder_work).run(bar, hooks, watch=False)
            os._exit(1 if folder_work.failed or folder_work.left else 0)
        return process

    rng, running = random.Random(5), [work() for _ in range(3)]
    for _ in range(kills):
        # By what is made, not by a clock: the machine may be busy.
        made, until = folder.joinpath("log").stat().st_size, time.monotonic() + 5
        while folder.joinpath("log").stat().st_size == made and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.05)
        at = rng.randrange(3)
        os.kill(running[at], signal.SIGKILL)
        if rng.random() < 0.5:
            os.waitpid(running[at], 0)  # the others are never waited for
        running[at] = work()
    assert [os.waitpid(process, 0)[1] for process in running] == [0, 0, 0]
"""


@pytest.mark.slow
@pytest.mark.linux
def test_workers_that_are_killed_lose_nothing_and_make_nothing_twice(
    films: Path, model: Path, root: Path, tmp_path: Path
) -> None:
    """Three workers make six films while one after the other is killed: each block is stored once, as if made alone."""
    for number in range(1, 7):
        (films / f"film {number}.txt").write_text(SCRIPT.format(seed=number))
    program = tmp_path / "killed.py"
    program.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(program), str(root), str(films), str(model), "6"]
    ran = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    stored = Counter((films / "log").read_text().splitlines())
    assert set(stored.values()) == {1} and len(stored) >= 12 - 6  # a kill may come between a block and its line
    for number in random.Random(1).sample(range(1, 7), 3):
        take = Take.load(films / f"film {number}.take")
        alone = made_alone(films / f"film {number}.txt", tmp_path / f"{number}.mp4", model)
        assert all(same(latents(take), latents(alone))) and take.film.read_bytes() == alone.film.read_bytes()
    assert not list(films.rglob("*.partial")) and not list(films.rglob("in_use*")) and not list(films.glob("*.failed"))


@pytest.mark.slow
@pytest.mark.linux
def test_workers_share_the_shots_of_one_film(films: Path, model: Path, root: Path, tmp_path: Path) -> None:
    """With independent shots three workers make one film, one after the other is killed, and it is as if made alone."""
    (films / "film 2.txt").unlink()
    script = films / "film 1.txt"
    script.write_text(
        "".join(f"Shot {n} (1 block): the {'hero' if n % 2 else 'other'} @seed={n}\n" for n in range(1, 13))
    )
    program = tmp_path / "killed.py"
    program.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(program), str(root), str(films), str(model), "3", "independent"]
    ran = subprocess.run(command, timeout=120, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    stored = Counter((films / "log").read_text().splitlines())
    assert set(stored.values()) == {1} and any("/ahead/" in line for line in stored)
    take = Take.load(films / "film 1.take")
    settings = {**GIVEN, "model": str(model), "independent_shots": True}
    job = Job(RenderSettings.of(script, tmp_path / "alone.mp4", settings))
    assert job.run() and job.take is not None and all(same(latents(take), latents(job.take)))
    assert take.film.read_bytes() == job.take.film.read_bytes()
    assert not (take.folder / "ahead").exists() and not list(films.rglob("in_use*"))
