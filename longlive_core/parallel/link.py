"""Rank 0 leads: whatever it calls on all ranks the others call too, with the same arguments, until it lets them go.

rank 0                                     other ranks
leader = Leader(ranks)                     follow(ranks)
pool = leader.make(new_pool, 4)            pool = new_pool(ranks, 4), which stays here
flow = leader.call(run, pool, x)           run(ranks, pool, x), with the own pool
del pool                                   the own pool goes with the next call
leader.stop()                              returns
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .ranks import Ranks

T = TypeVar("T")

_INSIDE = 2**20
"""Bytes of a tensor on the CPU that goes with the message: one small broadcast more costs as much as a whole one."""


class RankError(RuntimeError):
    """The ranks cannot go on together: one of them failed or is gone. What rank 0 has stored stays as it is."""


@dataclass(frozen=True, slots=True)
class _SentTensor:
    """A tensor whose bytes are in the message or, if that is None, are broadcast after it.

    on_host: whether it is on the CPU in every rank.
    """

    shape: torch.Size
    dtype: torch.dtype
    on_host: bool
    inside: bytes | None


@dataclass(frozen=True, slots=True)
class _Kept:
    """What `Leader.make` made on each rank, by its number."""

    number: int


@dataclass(frozen=True, slots=True)
class _Message:
    """One call. keep: whether each rank keeps the result. dropped: numbers of what rank 0 no longer has."""

    work: Callable[..., Any] | None
    arguments: tuple[Any, ...]
    keep: bool
    dropped: tuple[int, ...]


class Leader:
    """Rank 0, which calls functions on all ranks. Not for two threads at once."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        # The error of a call, and whether one is under way: after either the ranks are no longer in step.
        self.failure: str | None = None
        self._is_calling = False
        self._kept, self._next = dict[int, weakref.ref[Any]](), 0

    def call(self, work: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401
        """Calls `work(ranks, *arguments)` on every rank, and returns the result of this one.

        work: a function at the top of its module. arguments: tensors, what `make` returned, and what can be pickled.
        Raises RankError if it fails here, after which no call is possible.
        """
        return self._together(work, arguments, None, keep=False)

    def make(self, work: Callable[..., T], *arguments: Any, own: T | None = None) -> T:  # noqa: ANN401
        """As `call`, but each rank keeps its result, or all things of a tuple, as arguments of later calls.

        The others drop theirs when this rank has dropped its own. own: what this rank has already, in place of `work`.
        """
        result = self._together(work, arguments, own, keep=True)
        for thing in _things(result):
            self._kept[self._next] = weakref.ref(thing)
            self._next += 1
        return result

    def stop(self) -> None:
        """Ends `follow` on the other ranks, unless they are no longer in step."""
        if self.failure is None and not self._is_calling:
            self._send(_Message(None, (), False, ()), ())
            self.failure = "they were stopped"

    def _together(self, work: Callable[..., T], arguments: tuple[Any, ...], own: T | None, *, keep: bool) -> T:
        if self.failure is not None or self._is_calling:
            why = self.failure or "a call was interrupted"
            raise RankError(f"the {self.ranks.size} ranks no longer work together: {why}")
        dropped = tuple(number for number, thing in self._kept.items() if thing() is None)
        for number in dropped:
            del self._kept[number]
        numbers = {id(thing()): number for number, thing in self._kept.items()}
        message = _Message(work, tuple(_encoded(argument, numbers) for argument in arguments), keep, dropped)
        self._is_calling = True
        try:
            self._send(message, arguments)
            result = work(self.ranks, *arguments) if own is None else own
        except Exception as error:
            self.failure = " ".join(str(error).split()) or type(error).__name__
            raise RankError(f"rank 0 of {self.ranks.size} cannot go on: {self.failure}") from error
        self._is_calling = False
        return result

    def _send(self, message: _Message, arguments: tuple[Any, ...]) -> None:
        import torch.distributed as dist

        dist.broadcast_object_list([message], group=self.ranks.group, device=torch.device("cpu"), group_src=0)
        for argument in arguments:
            if isinstance(argument, Tensor) and not _goes_inside(argument):
                _broadcast(argument.contiguous(), self.ranks)


def follow(ranks: Ranks) -> None:
    """Does on another rank what rank 0 calls, until it stops. Any error of a call ends it."""
    kept, count = dict[int, Any](), 0
    with torch.no_grad():
        while (message := _receive(ranks)).work is not None:
            for number in message.dropped:
                del kept[number]
            arguments = [_decoded(argument, kept, ranks) for argument in message.arguments]
            result = message.work(ranks, *arguments)
            for thing in _things(result) if message.keep else ():
                kept[count] = thing
                count += 1
            del arguments, result, message


def _receive(ranks: Ranks) -> _Message:
    import torch.distributed as dist

    received: list[Any] = [None]
    dist.broadcast_object_list(received, group=ranks.group, device=torch.device("cpu"), group_src=0)
    return received[0]


def _things(result: Any) -> tuple[Any, ...]:  # noqa: ANN401
    return result if isinstance(result, tuple) else (result,)


def _encoded(argument: Any, numbers: dict[int, int]) -> Any:  # noqa: ANN401
    if id(argument) in numbers:
        return _Kept(numbers[id(argument)])
    if isinstance(argument, Tensor):
        inside = _as_bytes(argument.contiguous()).numpy().tobytes() if _goes_inside(argument) else None
        return _SentTensor(argument.shape, argument.dtype, argument.device.type == "cpu", inside)
    return argument


def _goes_inside(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.numel() * tensor.itemsize <= _INSIDE


def _decoded(argument: Any, kept: dict[int, Any], ranks: Ranks) -> Any:  # noqa: ANN401
    if isinstance(argument, _Kept):
        return kept[argument.number]
    if isinstance(argument, _SentTensor):
        tensor = torch.empty(argument.shape, dtype=argument.dtype, device="cpu" if argument.on_host else ranks.device)
        if argument.inside is None:
            _broadcast(tensor, ranks)
        elif argument.inside:
            _as_bytes(tensor).copy_(torch.frombuffer(bytearray(argument.inside), dtype=torch.uint8))
        return tensor
    return argument


def _broadcast(tensor: Tensor, ranks: Ranks) -> None:
    """Sends a contiguous tensor of rank 0 to the others, in place, as bytes: gloo does not know every dtype."""
    import torch.distributed as dist

    dist.broadcast(_as_bytes(tensor), group=ranks.group, group_src=0)


def _as_bytes(tensor: Tensor) -> Tensor:
    """A view of a contiguous tensor, `[bytes]`."""
    return tensor.view(-1).view(torch.uint8)
