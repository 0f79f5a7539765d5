"""How runs are timed: with events of the device, with cold caches, in an order that drift does not favour."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple, TypeVar

import torch

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
COLD = 512 << 20
"""Bytes that are read to empty the caches: more than any holds, and long enough to hide the launch behind it."""

T = TypeVar("T")
Run = Callable[[], object]
Measure = Callable[[Run], float]


class Time(NamedTuple):
    """Milliseconds of one call by events of the device and by the clock."""

    device: float
    wall: float


def timed(run: Run) -> Time:
    """Measures one call, from an idle device to its end."""
    if not CUDA:
        began = perf_counter()
        run()
        took = 1e3 * (perf_counter() - began)
        return Time(took, took)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    began = perf_counter()
    start.record()
    run()
    end.record()
    end.synchronize()
    return Time(start.elapsed_time(end), 1e3 * (perf_counter() - began))


class ColdTimer:
    """Measures calls with cold caches, in milliseconds of the device.

    Before each call it reads a buffer that was written long ago: reading leaves no dirty lines, which the call would
    have to write back. The call is queued while the buffer is still read, so that its launch costs nothing.
    """

    def __init__(self) -> None:
        self._buffer = torch.ones((COLD if CUDA else 1024) // 4, device=DEVICE)
        self._sum = torch.zeros((), device=DEVICE)

    def __call__(self, run: Run) -> float:
        torch.sum(self._buffer, 0, out=self._sum)
        if not CUDA:
            return timed(run).device
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)


def abba(runs: Mapping[str, Run], measure: Measure, rounds: int, warm_ups: int = 2) -> dict[str, list[float]]:
    """Measures each run twice in each round, in order and in reverse order, so that a steady drift cancels out."""
    for run in runs.values():
        for _ in range(warm_ups):
            run()
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in (*runs, *reversed(runs)):
            samples[name].append(measure(runs[name]))
    return samples


def abba_order(items: Sequence[T], group: int) -> Iterator[T]:
    """Each group of items in order and in reverse order: what costs much to set up is visited twice."""
    for first in range(0, len(items), group):
        part = items[first : first + group]
        yield from (*part, *reversed(part))
