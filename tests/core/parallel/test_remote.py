"""A program beside the ranks: its calls, what ranks keep for it, and the ends of their processes."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from longlive.longlive_core.parallel import CalledOffError, RankError, RankProcesses, Ranks, Remote
from longlive.longlive_core.parallel.remote import serve
from torch import Tensor

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 10.0
# The program of a process that starts ranks. It has no guard: were it run again in them, it would start others.
PROGRAM = """
import sys, time
from types import ModuleType
package = sys.modules["longlive"] = ModuleType("longlive")
package.__path__ = [sys.argv[1]]
from longlive.longlive_core.parallel import RankProcesses, Ranks, Remote
processes = RankProcesses(2, threads=1)
Remote(processes).call(Ranks.shares, 4)
print(*processes.pids, flush=True)
time.sleep(600)
"""


class Box:
    """Names what the ranks keep."""


class FakeLeader:
    """Calls functions in this process. made: what `make` made. alive: which of it a call found alive, by its order."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Any]] = []
        self.alive: list[bool] = []

    def call(self, work: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        self.alive = [thing() is not None for thing in self.made]
        return work(Ranks(), *arguments)

    def make(self, work: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        result = self.call(work, *arguments)
        self.made += [weakref.ref(thing) for thing in (result if isinstance(result, tuple) else (result,))]
        return result


class FakeProcesses:
    """A pipe to a thread."""

    def __init__(self, commands: Connection) -> None:
        self.commands = commands
        self.ended: str | None = None

    def wait(self, _: object) -> None:
        """Returns at once: reading waits, too."""


@pytest.fixture
def served() -> Iterator[tuple[Remote, FakeLeader]]:
    """A `Remote` whose rank 0 is a thread."""
    commands, pipe = Pipe()
    leader = FakeLeader()

    def work() -> None:
        with suppress(EOFError):
            serve(leader, pipe)  # type: ignore[arg-type]

    thread = Thread(target=work)
    thread.start()
    yield Remote(FakeProcesses(commands)), leader  # type: ignore[arg-type]
    commands.close()
    thread.join()


class Thing:
    """What a rank keeps."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


def things(_: Ranks, *values: Tensor) -> tuple[Thing, ...]:
    return tuple(Thing(value) for value in values)


def values_of(_: Ranks, *kept: Thing) -> tuple[Tensor, ...]:
    return tuple(thing.value for thing in kept)


def given(_: Ranks, *values: Any) -> Any:  # noqa: ANN401
    return values[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint8, torch.int64])
def test_tensors_cross_to_the_bit(served: tuple[Remote, FakeLeader], dtype: torch.dtype) -> None:
    """A tensor of any dtype and shape, also empty, of a scalar or not contiguous, comes back as it was."""
    remote, _ = served
    for x in (torch.randn(3, 4).to(dtype), torch.randn(4, 3).to(dtype).T, torch.zeros(0, 2).to(dtype), torch.tensor(1)):
        back = remote.call(given, x)
        assert back.shape == x.shape and back.dtype == x.dtype
        assert back.contiguous().view(-1).view(torch.uint8).equal(x.contiguous().view(-1).view(torch.uint8))
    assert remote.call(given, None) is None
    assert remote.call(given, ()) == ()


def test_ranks_drop_what_the_caller_has_dropped(served: tuple[Remote, FakeLeader]) -> None:
    """The ranks keep each thing as long as the caller has its name, and use it where the caller gives that name."""
    remote, leader = served
    first, second = remote.make(things, torch.tensor(1), torch.tensor(2), own=(Box(), Box()))  # type: ignore[misc]
    assert remote.call(values_of, second, first) == (torch.tensor(2), torch.tensor(1))
    del first
    assert remote.call(values_of, second) == (torch.tensor(2),)
    assert leader.alive == [False, True]
    third = remote.make(things, torch.tensor(3), own=(Box(),))[0]
    assert remote.call(values_of, third, second) == (torch.tensor(3), torch.tensor(2))
    fourth = remote.make(things, torch.tensor(4), own=(Box(),))
    del third, fourth
    remote.call(values_of, second)
    assert leader.alive == [False, True, False, False]


def runs(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Whether all processes end within seconds."""
    end = time.monotonic() + SECONDS
    while any(map(runs, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(runs, pids))


@pytest.mark.slow
@pytest.mark.linux
def test_the_first_failure_is_named_and_none_is_left() -> None:
    """An error in a rank and a killed rank each end all calls with the reason, and no process is left."""
    for killed, what in (
        (False, "rank [01] of 2 failed: .*unsupported operand"),
        (True, "rank 1 of 2 was ended by SIGKILL"),
    ):
        processes = RankProcesses(2, threads=1)
        pids, remote = processes.pids, Remote(processes)
        work: tuple[Any, ...] = (Ranks.shares, 4) if killed else (operator.truediv, 0)
        if killed:
            assert remote.call(*work) == (2, 2)
            os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(RankError, match=what):
            remote.call(*work)
        assert gone(pids) and not processes.check()
        with pytest.raises(RankError, match=what):
            remote.call(*work)


@pytest.mark.slow
@pytest.mark.linux
def test_a_stop_ends_ranks_that_load() -> None:
    """Who no longer wants to wait does not wait: the ranks end."""
    processes = RankProcesses(2, threads=1)
    pids, start = processes.pids, time.monotonic()
    with pytest.raises(CalledOffError):
        Remote(processes).make(Ranks.shares, 4, own=(1,), should_stop=lambda: True)
    assert time.monotonic() - start < SECONDS
    assert gone(pids)


@pytest.mark.slow
@pytest.mark.linux
def test_no_rank_outlives_its_program(tmp_path: Path) -> None:
    """Kill -9 of the program that has started them ends all ranks; they never run that program themselves."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 2 and all(map(runs, pids))
        program.kill()
    assert gone(pids)
