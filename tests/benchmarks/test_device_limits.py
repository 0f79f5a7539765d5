"""Limits of `device.py`: what fails, hangs or runs out of time costs its own row, and says so. With a fake clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

HANG, DIE = "hang", "die"
NAMES = ["a", "b", "c", "a", "b", "c"]


class Clock:
    """A clock that a fake child moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeChild:
    """A process whose tasks take some seconds, or hang, or take it down. ended: whether `end` was called."""

    clock: Clock
    plan: list[str]
    first: int
    without: list[str]
    tasks: list[float | str]
    ended: bool = False
    pending: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pending.append({"event": "plan", "rows": self.plan})
        for index, name in enumerate(self.plan):
            if index >= self.first and name not in self.without:
                self.pending.append({"event": "start", "index": index})
                self.pending.append({"took": self.tasks[index], "name": name})
        self.pending.append({"event": "end"})

    def event(self, timeout: float) -> dict[str, Any] | None:
        head = self.pending[0]
        if "took" not in head:
            return self.pending.pop(0)
        if head["took"] == DIE:
            return None
        if head["took"] == HANG or head["took"] > timeout:
            self.clock.now += timeout
            raise TimeoutError
        self.clock.now += head["took"]
        self.pending.pop(0)
        return {"event": "row", "row": {"name": head["name"], "status": "ok", "samples": {"ms": [head["took"]]}}}

    def end(self) -> str:
        self.ended = True
        return "the process ended with -11"


@pytest.fixture
def device(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """The modules of the parts, by name."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return lambda name: import_module(f"device_parts.{name}")


def run(
    device: Any,  # noqa: ANN401
    tasks: Sequence[float | str],
    *,
    limit: float = 100,
    seconds: float = 1000,
    needs: tuple[str, ...] = (),
) -> tuple[list[tuple[str, str]], list[FakeChild]]:
    """The rows of one part as (name, status), and the processes that it took."""
    clock, children = Clock(), list[FakeChild]()

    def start(part: Any, first: int, without: Sequence[str]) -> FakeChild:  # noqa: ANN401, ARG001
        children.append(FakeChild(clock, NAMES, first, list(without), list(tasks)))
        return children[-1]

    part = device("plan").Part("fake", "Fake", 1, limit, 20, needs)
    results = device("supervise").run_parts([part], start, clock, seconds)
    rows = device("part").merge(result.row for result in results)
    assert all(child.ended for child in children)
    return [(row.name, row.status) for row in rows.values()], children


def test_a_part_in_time_gives_all_its_rows(device: Any) -> None:  # noqa: ANN401
    """All tasks run in one process, and those of one row are put together."""
    rows, children = run(device, [1] * 6)
    assert rows == [("a", "ok"), ("b", "ok"), ("c", "ok")] and len(children) == 1


@pytest.mark.parametrize("fault", [HANG, DIE])
def test_a_fault_costs_its_own_row(device: Any, fault: str) -> None:  # noqa: ANN401
    """A task that hangs or takes its process down fails; a new process goes on behind it without that row."""
    rows, children = run(device, [1, fault, 1, 1, 1, 1])
    assert rows == [("a", "ok"), ("b", "failed"), ("c", "ok")]
    assert [(child.first, child.without) for child in children] == [(0, []), (2, ["b"])]


def test_the_limit_of_a_part_skips_what_is_left(device: Any) -> None:  # noqa: ANN401
    """Rows whose tasks did not all run say so, and no new process is begun for them."""
    rows, children = run(device, [10, 10, 10, 10, 10, 10], limit=25)
    assert rows == [("a", "skipped"), ("b", "skipped"), ("c", "skipped")] and len(children) == 1


def test_what_the_whole_has_no_time_for_is_not_begun(device: Any) -> None:  # noqa: ANN401
    """With less than the least time left a part starts no process, and has a row that says so."""
    rows, children = run(device, [1] * 6, seconds=5)
    assert rows == [("all", "skipped")] and children == []


def test_a_missing_package_skips_a_part(device: Any) -> None:  # noqa: ANN401
    """A part whose packages are not installed starts no process."""
    rows, children = run(device, [1] * 6, needs=("no_such_package",))
    assert rows == [("all", "skipped")] and children == []


def test_an_unknown_part_is_named(device: Any) -> None:  # noqa: ANN401
    """A misspelt part is an error that lists the parts."""
    with pytest.raises(ValueError, match="no part is called opps; choose of ops, "):
        device("plan").chosen(["opps"])
