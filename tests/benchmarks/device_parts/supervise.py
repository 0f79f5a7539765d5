"""Runs the parts in processes of their own, and cuts what takes too long: a task, a part, or all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from .part import Row
from .plan import LEAST, Part, missing

Event = dict[str, Any]
Clock = Callable[[], float]


class Child(Protocol):
    """A process that runs the tasks of a part; see `__main__`."""

    def event(self, timeout: float) -> Event | None:
        """The next event. None if the process has ended. Raises TimeoutError after `timeout` seconds."""
        ...

    def end(self) -> str:
        """Ends the process and waits for it; returns how it ended and the last thing that it said, in one line."""
        ...


Start = Callable[[Part, int, Sequence[str]], Child]
"""Starts a part at the task of an index, without the tasks of some rows."""


class Result(NamedTuple):
    """A row of a part, and the seconds since the part began."""

    part: Part
    row: Row
    seconds: float


def run_parts(parts: Sequence[Part], start: Start, clock: Clock, seconds: float) -> Iterator[Result]:
    """Yields rows as they come. After `seconds` the rest is skipped, with a row that says so."""
    end = clock() + seconds
    for part in parts:
        began = clock()
        if absent := missing(part.needs):
            yield Result(part, Row("all", "skipped", note=f"not installed: {', '.join(absent)}"), 0.0)
        elif end - began < LEAST:
            yield Result(part, Row("all", "skipped", note=f"the {seconds:.0f} s of all parts are used up"), 0.0)
        else:
            for row in run_part(part, start, clock, min(end - began, part.limit)):
                yield Result(part, row, clock() - began)


def run_part(part: Part, start: Start, clock: Clock, limit: float) -> Iterator[Row]:
    """Yields the rows of a part within `limit` seconds.

    A task that takes too long or takes its process down costs its row; a new process goes on behind it.
    """
    end, first, dropped = clock() + limit, 0, list[str]()
    while True:
        run = _Run(part, start(part, first, dropped), clock, end)
        for row in run.rows(first, dropped):
            yield row
            if not row.timed:
                dropped.append(row.name)
        if not run.goes_on:
            return
        first = run.index + 1


class _Run:
    """One process of a part. goes_on: whether tasks are left for another one, behind the task of `index`."""

    def __init__(self, part: Part, child: Child, clock: Clock, end: float) -> None:
        self._part, self._child, self._clock, self._end = part, child, clock, end
        self._plan: list[str] = []
        self._current: str | None = None
        self.index, self.goes_on = -1, False

    def rows(self, first: int, dropped: Sequence[str]) -> Iterator[Row]:
        task_end = self._end
        self.index = first - 1
        while True:
            try:
                event = self._child.event(max(0.0, min(self._end, task_end) - self._clock()))
            except TimeoutError:
                self._child.end()
                yield from self._cut(dropped)
                return
            if event is None:
                yield from self._died(self._child.end())
                return
            if event["event"] == "plan":
                self._plan = event["rows"]
            elif event["event"] == "start":
                self.index = event["index"]
                self._current, task_end = self._plan[self.index], self._clock() + self._part.row_limit
            elif event["event"] == "row":
                self._current, task_end = None, self._end
                yield Row.from_dict(event["row"])
            else:
                self._child.end()
                return

    def _cut(self, dropped: Sequence[str]) -> Iterator[Row]:
        """The rows after a limit of time: of the task, or of the part and so of all tasks that are left."""
        if self._clock() < self._end and self._current is not None:
            yield Row(self._current, "failed", note=f"took more than {self._part.row_limit:.0f} s")
            self.goes_on = self.index + 1 < len(self._plan)
            return
        left = self._plan[self.index + (self._current is None) :]
        for name in dict.fromkeys(left) if self._plan else ("all",):
            if name not in dropped:
                yield Row(name, "skipped", note="the time of the part is used up")

    def _died(self, how: str) -> Iterator[Row]:
        """The row of a process that ended before its last task."""
        if self._current is not None:
            yield Row(self._current, "failed", note=how)
        elif self.index < 0:
            yield Row("all", "failed", note=how)
            return
        self.goes_on = self.index + 1 < len(self._plan)
