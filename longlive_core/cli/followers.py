"""The processes of the other ranks of `--gpus N`: each loads the model and does what rank 0 calls, until it stops.

None outlives rank 0, however that ends; and where one ends too early, rank 0 ends within seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from threading import Event, Thread

import torch

from ..parallel import Leader, RankError, Ranks, follow, make_mesh
from .console import BAD_INPUT

# Between two calls of rank 0 the others wait as long as it takes. That a rank is gone is noticed without a limit.
LIMIT = timedelta(days=365)
GRACE_SECONDS = 3.0
END_SECONDS = 10.0


def device_of(local: int) -> str:
    """The device of a rank, by its number on this machine. Raises ValueError for a machine with fewer GPUs."""
    count = torch.cuda.device_count()
    if count and local >= count:
        raise ValueError(f"rank {local} of this machine has no GPU, of which there are {count}; start {count} or fewer")
    return f"cuda:{local}" if count else "cpu"


@contextmanager
def joined(meeting: str | None, rank: int, size: int, device: str) -> Generator[Ranks, None, None]:
    """Joins the other ranks; collectives use NCCL on GPUs and gloo on CPUs.

    meeting: the URL of a file that all of them name; None where torchrun tells rank and size.
    """
    import torch.distributed as dist

    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=LIMIT)
    try:
        yield make_mesh(dist.get_world_size(), device).sequence
    finally:
        dist.destroy_process_group()


class Followers:
    """Ranks 1 … count − 1 on this machine, which end with the `with` block. threads: of each on the CPU.

    leader: what they follow, once all have joined.
    """

    def __init__(self, meeting: str, count: int, threads: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._count, self._is_ending, self._errors = count, Event(), context.SimpleQueue()
        self.leader: Leader | None = None
        self._processes = [
            context.Process(target=_follow, args=(rank, meeting, count, threads, self._errors), daemon=True)
            for rank in range(1, count)
        ]

    def __enter__(self) -> Followers:
        for process in self._processes:
            process.start()
        Thread(target=self._end_with_them, name="followers", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._is_ending.set()
        for process in self._processes:
            process.join(END_SECONDS if kind is None else 0)
            process.kill()

    def expect_end(self) -> None:
        """Says that they end from now on because rank 0 lets them go."""
        self._is_ending.set()

    def reason(self, failure: str) -> RankError:
        """Why the ranks cannot go on, by the one that ended first. failure: what rank 0 knows of it."""
        wait([process.sentinel for process in self._processes], GRACE_SECONDS)
        errors = dict[int, str]()
        while not self._errors.empty():
            rank, error = self._errors.get()
            errors[rank] = error
        what = failure
        # Of ranks that failed, the last in this order was first: others fail because their connection to it is lost.
        for rank, error in sorted(errors.items(), key=lambda item: "onnection" not in item[1]):
            what = f"rank {rank} of {self._count} failed: {error}"
        for rank, process in enumerate(self._processes, 1):
            if (process.exitcode or 0) < 0:
                what = f"rank {rank} of {self._count} was ended by {signal.Signals(-(process.exitcode or 0)).name}"
        return RankError(f"{what}; finished blocks stay in the take, which goes on with any number of GPUs")

    def _end_with_them(self) -> None:
        """Ends this process if one of them is gone and it does not notice: a GPU would wait for the other forever."""
        wait([process.sentinel for process in self._processes])
        if not self._is_ending.wait(2 * GRACE_SECONDS) and (self.leader is None or self.leader.failure is None):
            print(f"longlive: {self.reason('another rank is gone')}", file=sys.stderr, flush=True)
            os._exit(BAD_INPUT)


def _follow(rank: int, meeting: str, count: int, threads: int | None, errors: SimpleQueue[tuple[int, str]]) -> None:
    """What the process of a rank does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for rank 0, which then lets the others go
    Thread(target=_end_with_parent, name="parent", daemon=True).start()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with joined(meeting, rank, count, device_of(rank)) as ranks:
            follow(ranks)
    except Exception as error:
        errors.put((rank, " ".join(str(error).split()) or type(error).__name__))
        sys.exit(BAD_INPUT)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
