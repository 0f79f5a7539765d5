"""The processes of the other ranks of `--gpus N`: each loads the model and does what rank 0 calls, until it stops.

None outlives rank 0, however that ends; and where one ends too early, rank 0 ends within seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from threading import Event, Thread

import torch

from ..parallel import Leader, RankError, device_of, end_with_parent, first_failure, follow, joined
from .console import BAD_INPUT

GRACE_SECONDS = 3.0
END_SECONDS = 10.0
FILM_STAYS = "finished blocks stay in the take, which goes on with any number of GPUs"


class Followers:
    """Ranks 1 … count − 1 on this machine, which end with the `with` block. threads: of each on the CPU.

    stays: what is kept if one fails, for the message. leader: what they follow, once all have joined.
    """

    def __init__(self, meeting: str, count: int, threads: int | None, stays: str = FILM_STAYS) -> None:
        context = multiprocessing.get_context("spawn")
        self._count, self._is_ending, self._errors = count, Event(), context.SimpleQueue()
        self._stays = stays
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
        codes = [None, *(process.exitcode for process in self._processes)]
        what = first_failure(self._count, errors, codes, failure)
        return RankError(f"{what}; {self._stays}")

    def _end_with_them(self) -> None:
        """Ends this process if one of them is gone and it does not notice: a GPU would wait for the other forever."""
        wait([process.sentinel for process in self._processes])
        if not self._is_ending.wait(2 * GRACE_SECONDS) and (self.leader is None or self.leader.failure is None):
            print(f"longlive: {self.reason('another rank is gone')}", file=sys.stderr, flush=True)
            os._exit(BAD_INPUT)


def _follow(rank: int, meeting: str, count: int, threads: int | None, errors: SimpleQueue[tuple[int, str]]) -> None:
    """What the process of a rank does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for rank 0, which then lets the others go
    end_with_parent()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with joined(meeting, rank, count, device_of(rank)) as ranks:
            follow(ranks)
    except Exception as error:
        errors.put((rank, " ".join(str(error).split()) or type(error).__name__))
        sys.exit(BAD_INPUT)
