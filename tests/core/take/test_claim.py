"""A claim on a take: one holder among all processes and machines, taken over when its holder is gone, and only then."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock

import pytest
from longlive.longlive_core.pipeline.stages import StageError
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take, lock
from longlive.longlive_core.take.holder import Holder
from longlive.longlive_core.take.lock import STALE_SECONDS, TakeLock, TakenOverError

from ..takes import latents, make_mini, make_settings, resume, same

Program = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A take, so that no release removes the folder."""
    (tmp_path / "film.take").mkdir()
    (tmp_path / "film.take" / "kept").touch()
    return tmp_path / "film.take"


@pytest.fixture
def program(root: Path) -> Iterator[Program]:
    """Starts `claiming.py`; whatever still runs is killed."""
    started = list[subprocess.Popen[str]]()

    def start(*words: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("claiming.py")), str(root), *map(str, words)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def ask(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def claims(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "kept")


def elsewhere(folder: Path, number: int = 1) -> Path:
    """The claim of a process on another machine."""
    holder = replace(Holder.of_this_process(), host="far", machine="far away", pid=7)
    path = folder / f"in_use.{number}"
    path.write_text(holder.text)
    return path


def age(path: Path, seconds: float, now: float | None = None) -> None:
    """Dates a file as the server would have so many seconds ago."""
    then = (time.time() if now is None else now) - seconds
    os.utime(path, (then, then))


@pytest.mark.slow
def test_of_all_that_want_a_take_one_has_it(folder: Path, program: Program) -> None:
    """Four processes lock and release one folder 40 times each, and none is ever inside beside another."""
    processes = [program(folder, "contend", 40) for _ in range(4)]
    for process in processes:
        assert line(process) == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [line(process) for process in processes] == ["0\n"] * 4
    assert claims(folder) == []


def test_the_claim_of_a_process_that_was_killed_is_free_at_once(folder: Path, program: Program) -> None:
    """On the same machine nobody waits for a heartbeat: a process that does not run any more has no take."""
    process = program(folder, "hold")
    assert line(process) == "holds\n"
    with pytest.raises(BlockingIOError, match=rf"another process \({process.pid} on "):
        TakeLock(folder)
    process.kill()
    process.wait(timeout=20)
    with TakeLock(folder):
        assert claims(folder) == ["in_use.2"]
    assert claims(folder) == []


def test_a_later_process_with_the_number_of_a_dead_one_has_nothing(folder: Path) -> None:
    """Systems give process numbers again; the claim of another start of this number is that of a dead process."""
    me = Holder.of_this_process()
    if not me.started:
        pytest.skip("this system does not tell when a process began")
    (folder / "in_use.1").write_text(replace(me, started="1").text)
    with TakeLock(folder):
        pass


@pytest.mark.parametrize("shift", [0.0, -86400.0, 86400.0])
def test_another_machine_holds_its_take_while_its_heart_beats(
    folder: Path, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    """It has the take for STALE_SECONDS by the server's clock, also if that of this machine is a day off."""
    if shift:
        monkeypatch.setattr(lock, "_now_in", lambda _: time.time() + shift)
    claim = elsewhere(folder)
    for seconds in (0, STALE_SECONDS - 5):
        age(claim, seconds, time.time() + shift)
        with pytest.raises(BlockingIOError, match=r"\(7 on far\).*if that machine is gone, wait for 60 s"):
            TakeLock(folder)
    age(claim, STALE_SECONDS + 1, time.time() + shift)
    with TakeLock(folder):
        assert claims(folder) == ["in_use.2"]


def test_a_claim_of_the_future_is_stale_too(folder: Path) -> None:
    """A server whose clock was set back does not keep a dead claim for ever: a holder would have written since."""
    age(elsewhere(folder), -STALE_SECONDS - 1)
    with TakeLock(folder):
        pass


def test_a_claim_without_contents_is_one(folder: Path) -> None:
    """Its process has just made it, or the disk is full: it holds as long as it is young."""
    (folder / "in_use.1").touch()
    with pytest.raises(BlockingIOError, match="another process; wait"):
        TakeLock(folder)
    age(folder / "in_use.1", STALE_SECONDS + 1)
    with TakeLock(folder):
        pass


def test_a_heart_beats_for_its_own_claim_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a claim is dated anew again and again; once another process has the take, its file is not touched."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    with TakeLock(folder) as held:
        mine = folder / "in_use.1"
        age(mine, 1000)
        until = time.monotonic() + 20
        while time.time() - mine.stat().st_mtime > 500:
            assert time.monotonic() < until
            time.sleep(0.01)
        held.check()
        other = replace(Holder.of_this_process(), host="far", machine="far away").text
        mine.unlink()
        mine.write_text(other)
        time.sleep(0.05)
        age(mine, 1000)
        time.sleep(0.1)
        assert time.time() - mine.stat().st_mtime > 500 and mine.read_text() == other
    assert mine.read_text() == other


def test_who_lost_a_take_is_told_and_leaves_it_to_the_other(folder: Path, program: Program) -> None:
    """A process that was paused finds out by `check`, and its end does not release the take of the other one."""
    process = program(folder, "hold")
    assert line(process) == "holds\n" and ask(process) == "has it\n"
    age(folder / "in_use.1", STALE_SECONDS + 1)
    with TakeLock(folder) as mine:
        answer = ask(process)
        assert f"was taken over by another process, because this one, {process.pid}, did nothing for 60 s" in answer
        process.communicate(timeout=20)
        assert process.returncode == 0 and claims(folder) == ["in_use.2"]
        mine.check()


def test_a_directory_from_memory_gives_nobody_a_take(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An NFS client may list claims that are gone. Whoever claims by such a list notices, and withdraws."""
    age(gone := elsewhere(folder, 3), STALE_SECONDS + 1)
    listed, opened = [(3, gone)], gone.open("rb")
    gone.unlink()
    age_of = lock._is_abandoned
    elsewhere(folder, 7)
    lists = iter([listed])
    claims_in = lock._claims
    monkeypatch.setattr(lock, "_claims", lambda path: next(lists, None) or claims_in(path))
    monkeypatch.setattr(lock, "_is_abandoned", lambda path: path == gone or age_of(path))
    with opened, pytest.raises(BlockingIOError, match="7 on far"):
        TakeLock(folder)
    assert claims(folder) == ["in_use.7"]


def test_a_lock_that_nobody_has_is_released(folder: Path) -> None:
    """As a job that is dropped before it runs, for which no process would be blamed."""
    held = TakeLock(folder)
    assert claims(folder) == ["in_use.1"]
    del held
    gc.collect()
    assert claims(folder) == []


def taken_over(settings: RenderSettings) -> TakeLock:
    """The lock of a take whose holder has not written for a minute."""
    take = settings.output.with_suffix(".take")
    age(next(take.glob("in_use.*")), STALE_SECONDS + 1)
    return TakeLock(take)


@pytest.mark.slow
@pytest.mark.parametrize("calls", [3, 40])
def test_a_film_whose_take_was_taken_over_writes_nothing_more(tmp_path: Path, calls: int) -> None:
    """Neither a block, nor a frame, nor an index after that moment; whoever has the take now makes the same film."""
    mini, settings = make_mini(), make_settings(tmp_path)
    alone = make_settings_in(tmp_path / "alone")
    assert Job(alone, mini=mini).run()
    locks, then, mutex, left = list[TakeLock](), dict[Path, bytes](), Lock(), iter(range(calls))

    def pause() -> bool:
        with mutex:  # sampling and decoding ask
            if next(left, None) is None and not locks:
                locks.append(taken_over(settings))
                time.sleep(0.3)  # what passed its check before that may still be written
                then.update(contents(tmp_path))
        return False

    job = Job(settings, mini=mini, should_stop=pause)
    with pytest.raises(StageError, match="was taken over by another process") as error:
        job.run()
    assert isinstance(error.value.__cause__, TakenOverError)
    assert contents(tmp_path) == then and settings.output in then
    locks[0].check()
    locks[0].release()
    resume(take := Take.load(tmp_path / "film.take"), mini)
    assert all(same(latents(take), latents(Take.load(tmp_path / "alone" / "film.take"))))
    assert settings.output.read_bytes() == alone.output.read_bytes()


def make_settings_in(folder: Path) -> RenderSettings:
    folder.mkdir()
    return make_settings(folder)


def contents(folder: Path) -> dict[Path, bytes]:
    """The files below a folder."""
    found = dict[Path, bytes]()
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                found[path] = path.read_bytes()
    return found
