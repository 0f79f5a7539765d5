"""Processes that train one model together: each takes some parts of a batch, and gradients are summed in every step.

A small model on a CPU with few cores trains several times as fast in two processes of one thread as in one process of
two threads. The sum has the same bits in all processes, so their weights stay equal without being sent.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from ..parallel import ALONE as ONE_RANK
from ..parallel import Ranks

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """One of `count` processes that train together, the one with number `rank`. The first one writes all files.

    sequence: the processes that share each part of a batch with this one, neighbours by rank. The groups of such
    processes have different parts.
    """

    rank: int = 0
    count: int = 1
    sequence: Ranks = ONE_RANK

    @property
    def first(self) -> bool:
        """Whether this process writes checkpoints and log."""
        return self.rank == 0

    @property
    def groups(self) -> int:
        """How many groups of processes share the parts of a batch."""
        return self.count // self.sequence.size

    def takes(self, part: int) -> bool:
        """Whether a part of a batch is this process's."""
        return part % self.groups == self.rank // self.sequence.size

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces each gradient by its sum over the groups, and its mean over the ranks of a sequence.

        A missing gradient counts as zero.
        """
        if self.count == 1:
            return
        parameters = list(parameters)
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
        dist.all_reduce(flat)
        flat /= self.sequence.size
        for p, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = gradient.view_as(p)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of the processes."""
        if self.count == 1:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes)
        return bool(votes)

    def sum_figures(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Sums figures by name over the groups; of the ranks of a sequence they are averaged."""
        if self.count == 1:
            return dict(figures)
        gathered: list[dict[str, float]] = [{} for _ in range(self.count)]
        dist.all_gather_object(gathered, dict(figures))
        names = dict.fromkeys(name for one in gathered for name in one)
        return {name: sum(one.get(name, 0.0) for one in gathered) / self.sequence.size for name in names}

    def call_in_first(self, call: Callable[[], None]) -> None:
        """Calls in the first process only, while the others wait. An error of the call is raised in all of them."""
        if self.count == 1:
            return call()
        errors: list[Exception | None] = [None]
        if self.first:
            try:
                call()
            except Exception as error:
                errors[0] = error
        dist.broadcast_object_list(errors, src=0)
        if errors[0] is not None:
            raise errors[0]
        return None


ALONE = Workers()


def run_workers(target: Callable[..., T], count: int, *args: Any, own: tuple[Any, ...] = ()) -> T:  # noqa: ANN401
    """Calls `target(workers, *args)` in `count` processes; this one is the first and returns `target`'s result.

    target, args: as for a process that is spawned, so `target` must be at the top of its module. own: more arguments in
    this process, which need not be sent to others. Two or more processes use one thread each; only this one answers to
    Ctrl-C. Raises RuntimeError with the error of another process if that is why the call failed.
    """
    if count == 1:
        return target(ALONE, *args, *own)
    context = multiprocessing.get_context("spawn")
    errors, begun = context.SimpleQueue(), context.Semaphore(0)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        others = [
            context.Process(
                target=_other, args=(meeting, errors, begun, target, Workers(rank, count), args), daemon=True
            )
            for rank in range(1, count)
        ]
        for process in others:
            process.start()
        try:
            _wait_until_begun(others, begun)
            return _joined(meeting, target, Workers(0, count), (*args, *own))
        except Exception as error:
            for process in others:
                process.join(10)
            if not errors.empty():
                raise RuntimeError(f"another training process failed: {errors.get()}") from error
            raise
        finally:
            torch.set_num_threads(threads)
            for process in others:
                process.join(10)
                process.terminate()


def _wait_until_begun(processes: Sequence[BaseProcess], begun: Semaphore) -> None:
    """Returns when all processes run; without it, the process group would wait for one that could not start.

    Raises RuntimeError if one ends before.
    """
    for _ in processes:
        while not begun.acquire(timeout=1.0):
            for process in processes:
                if process.exitcode is not None:
                    raise RuntimeError(f"a training process ended with exit code {process.exitcode} before it began")


def _joined(meeting: str, target: Callable[..., T], workers: Workers, args: tuple[Any, ...]) -> T:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=workers.rank, world_size=workers.count)
    try:
        return target(workers, *args)
    finally:
        dist.destroy_process_group()


def _other(
    meeting: str,
    errors: Any,  # noqa: ANN401
    begun: Semaphore,
    target: Callable[..., object],
    workers: Workers,
    args: tuple[Any, ...],
) -> None:
    begun.release()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _joined(meeting, target, workers, args)
    except Exception as error:
        errors.put(f"{type(error).__name__}: {error}")
        raise
