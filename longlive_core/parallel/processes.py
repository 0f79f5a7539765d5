"""Ranks that are all processes of their own, one a GPU, for a program that must not be one of them.

They end with `end`, if one of them ends, and with the process that started them, however that ends.
"""

from __future__ import annotations

import runpy
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from types import ModuleType

from .join import first_failure
from .link import RankError

SCRIPT = Path(__file__).with_name("start_rank.py")
GRACE_SECONDS = 2.0
END_SECONDS = 5.0
POLL_SECONDS = 0.05


class CalledOffError(Exception):
    """The caller no longer waits for the ranks, which have ended."""


class RankProcesses:
    """The processes of all ranks. commands: the pipe to rank 0, which serves it, and whom the others follow.

    ended: why they have ended, None while they run.
    """

    def __init__(self, count: int, device: str = "cpu", threads: int | None = None) -> None:
        """Starts them. device: cuda for one GPU each, or cpu. threads: of each on the CPU."""
        # Not imported with the module: the command line starts its ranks without it.
        from torch import multiprocessing

        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory(prefix="longlive-ranks-", ignore_cleanup_errors=True)
        meeting = (Path(self._folder.name) / "meeting").as_uri()
        package, root = __name__.removesuffix(".longlive_core.parallel.processes"), str(SCRIPT.parents[2])
        self.commands, served = context.Pipe()
        self.ended: str | None = None
        self._processes, self._errors = list[BaseProcess](), list[Connection]()
        for rank in range(count):
            errors, told = context.Pipe(duplex=False)
            arguments = (package, root, rank, count, meeting, device, threads, told, None if rank else served)
            # The package has the name under which this process imported it, so that both mean the same functions.
            inputs = {"init_globals": {"ARGUMENTS": arguments}, "run_name": "rank"}
            process = context.Process(target=runpy.run_path, args=(str(SCRIPT),), kwargs=inputs, daemon=True)
            with _bare_main():
                process.start()
            told.close()
            self._errors.append(errors)
            self._processes.append(process)
        served.close()

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run."""
        return [process.pid or 0 for process in self._processes if process.is_alive()]

    def check(self) -> bool:
        """Whether all of them run; ends them if not."""
        if self.ended is None and len(self.pids) < len(self._processes):
            self.failure()
        return self.ended is None

    def wait(self, should_stop: Callable[[], bool] | None = None) -> None:
        """Returns when rank 0 has sent something. Raises RankError if one of them is gone.

        should_stop: ends them when it returns true; raises CalledOffError then.
        """
        sentinels = [process.sentinel for process in self._processes]
        timeout = None if should_stop is None else POLL_SECONDS
        while not (ready := wait([self.commands, *sentinels], timeout)):
            if should_stop is not None and should_stop():
                self.end("they were no longer needed")
                raise CalledOffError
        if self.commands not in ready:
            raise self.failure()

    def failure(self) -> RankError:
        """Why they cannot go on, by the one that failed first; ends them all."""
        deadline = monotonic() + GRACE_SECONDS  # in which those that one has left alone find out
        running = [process.sentinel for process in self._processes]
        while running and (left := deadline - monotonic()) > 0:
            running = [sentinel for sentinel in running if sentinel not in wait(running, left)]
        told = enumerate(map(_told, self._errors))
        errors = {rank: error for rank, error in told if error is not None}
        codes = [process.exitcode for process in self._processes]
        what = first_failure(len(codes), errors, codes, "a rank is gone")
        self.end(what)
        return RankError(f"{what}; finished blocks are kept, and the film goes on from them when it is made again")

    def end(self, reason: str) -> None:
        """Ends them now."""
        if self.ended is not None:
            return
        self.ended = reason
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join(END_SECONDS)
        for pipe in (self.commands, *self._errors):
            pipe.close()
        self._folder.cleanup()


def _told(pipe: Connection) -> str | None:
    """The error that a rank has told before it ended, if any."""
    try:
        return pipe.recv() if pipe.poll() else None
    except EOFError:
        return None


@contextmanager
def _bare_main() -> Generator[None, None, None]:
    """Without it a new process would first run the program of this one again, for ComfyUI the start of its server."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
