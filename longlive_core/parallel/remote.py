"""A process that is no rank calls functions on all ranks, through a pipe to rank 0.

caller                                  rank 0                              other ranks
remote = Remote(processes)              serve(Leader(ranks), pipe)          follow(ranks)
remote.make(new_pool, 4, own=box)       pool = new_pool(ranks, 4)           pool = new_pool(ranks, 4)
flow = remote.call(run, box, x)         run(ranks, pool, x), sent back      run(ranks, pool, x)
del box                                 the pool goes with the next call    the pool goes with the next call

What ranks keep is named by a thing that the caller has in its place, here `box`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from .link import Leader, RankError
from .processes import RankProcesses

T = TypeVar("T")


class Calls(Protocol):
    """Who calls functions on all ranks: `Leader`, or `Remote`."""

    def call(self, work: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        """See `Leader.call`."""
        ...

    def make(self, work: Callable[..., T], *arguments: Any, own: T | None = None) -> T:  # noqa: ANN401
        """See `Leader.make`."""
        ...


@dataclass(frozen=True, slots=True)
class _SentTensor:
    """A tensor on the CPU, whose bytes follow."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the ranks keep, by its number."""

    number: int


class Remote:
    """Calls functions on the ranks of `processes`, as `Leader` does on its own. Not for two threads at once."""

    def __init__(self, processes: RankProcesses) -> None:
        self.processes = processes
        self._kept, self._next = dict[int, weakref.ref[Any]](), 0

    def call(self, work: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        """Calls `work(ranks, *arguments)` on every rank, and returns the result of rank 0.

        work: a function at the top of its module. arguments: tensors, the `own` of `make`, and what can be pickled.
        The result is None, a tensor or a tuple of tensors, which are on the CPU. Raises RankError if a rank fails or is
        gone, after which all of them have ended.
        """
        return self._together(work, arguments, keep=False)

    def make(
        self,
        work: Callable[..., T],
        *arguments: Any,  # noqa: ANN401
        own: T | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> T:
        """As `call`, but the ranks keep the result, or all things of a tuple; returns `own`, which names them here.

        The ranks drop theirs when `own` is gone. should_stop: when it returns true all ranks are ended, and this raises
        CalledOffError.
        """
        assert own is not None  # a Leader has its own result, the caller here has none
        self._together(work, arguments, keep=True, should_stop=should_stop)
        for thing in own if isinstance(own, tuple) else (own,):
            self._kept[self._next] = weakref.ref(thing)
            self._next += 1
        return own

    def _together(
        self,
        work: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        keep: bool,
        should_stop: Callable[[], bool] | None = None,
    ) -> Any:  # noqa: ANN401
        if self.processes.ended is not None:
            raise RankError(f"the ranks have ended: {self.processes.ended}")
        dropped = tuple(number for number, thing in self._kept.items() if thing() is None)
        for number in dropped:
            del self._kept[number]
        numbers = {id(thing()): number for number, thing in self._kept.items()}
        named = (_Kept(numbers[id(a)]) if id(a) in numbers else a for a in arguments)
        try:
            _send(self.processes.commands, work, keep, dropped, *named)
            self.processes.wait(should_stop)
            several, *result = _receive(self.processes.commands)
        except (EOFError, OSError) as error:
            raise self.processes.failure() from error
        except BaseException:
            self.processes.end("a call was interrupted")
            raise
        return tuple(result) if several else result[0]


def serve(leader: Leader, commands: Connection) -> None:
    """Calls on rank 0 and the others what comes through the pipe. Raises EOFError when the caller is gone."""
    kept, count = dict[int, Any](), 0
    with torch.no_grad():
        while True:
            work, keep, dropped, *named = _receive(commands)
            for number in dropped:
                del kept[number]
            arguments = [kept[a.number] if isinstance(a, _Kept) else a for a in named]
            result = (leader.make if keep else leader.call)(work, *arguments)
            things = result if isinstance(result, tuple) else (result,)
            if keep:
                kept.update(enumerate(things, count))
                count += len(things)
            _send(commands, *((True,) if keep else (isinstance(result, tuple), *things)))
            del arguments, named, result, things, work


def _send(pipe: Connection, *values: Any) -> None:  # noqa: ANN401
    """Sends values, whose tensors go as their bytes, without a copy of those on the CPU."""
    pipe.send(tuple(_SentTensor(v.shape, v.dtype) if isinstance(v, Tensor) else v for v in values))
    for value in values:
        if isinstance(value, Tensor) and value.numel():
            pipe.send_bytes(_bytes(value.detach().cpu().contiguous()))


def _receive(pipe: Connection) -> list[Any]:
    values: list[Any] = []
    for value in pipe.recv():
        if isinstance(value, _SentTensor):
            tensor = torch.empty(value.shape, dtype=value.dtype)
            if tensor.numel():
                pipe.recv_bytes_into(_bytes(tensor))
            values.append(tensor)
        else:
            values.append(value)
    return values


def _bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]
