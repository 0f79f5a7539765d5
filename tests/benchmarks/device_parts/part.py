"""What a part of `device.py` is: tasks, each of which finds figures for one row of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Status = Literal["ok", "red", "failed", "skipped"]
"""red: a result is wrong. failed: an error, or a limit of time. Neither is timed."""

WORST: tuple[Status, ...] = ("failed", "red", "skipped", "ok")


@dataclass(frozen=True)
class Found:
    """What a task found for its row.

    figures: by name. samples: repeated measurements by name; those of all tasks of a row are put together. red: why the
    result is wrong, or nothing.
    """

    figures: dict[str, float | str] = field(default_factory=dict[str, "float | str"])
    samples: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    red: str = ""


class Skipped(Exception):
    """A row cannot be measured on this machine; the message says why."""


@dataclass(frozen=True)
class Task:
    """Work for the row of this name. Several tasks may have one row, as the visits of an arm."""

    row: str
    run: Callable[[], Found]


@dataclass(frozen=True)
class Row:
    """A row of results. note: the reason if it is not ok. Figures and samples as in `Found`."""

    name: str
    status: Status
    figures: dict[str, float | str] = field(default_factory=dict[str, "float | str"])
    samples: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    note: str = ""

    @classmethod
    def of(cls, task: Task) -> Row:
        """Runs a task. Its error costs its own row only."""
        try:
            found = task.run()
        except Skipped as skipped:
            return cls(task.row, "skipped", note=str(skipped))
        except Exception as error:
            return cls(task.row, "failed", note=one_line(error))
        return cls(task.row, "red" if found.red else "ok", found.figures, found.samples, found.red)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Row:
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def timed(self) -> bool:
        """Whether further tasks of the row may run."""
        return self.status == "ok"

    def merged(self, later: Row) -> Row:
        """This row and a later one of the same name: the worse status, all figures and all samples."""
        samples = {
            key: [*self.samples.get(key, ()), *later.samples.get(key, ())] for key in self.samples | later.samples
        }
        status = min(self.status, later.status, key=WORST.index)
        note = "; ".join(dict.fromkeys(filter(None, (self.note, later.note))))
        return replace(self, status=status, figures=self.figures | later.figures, samples=samples, note=note)


def merge(rows: Iterable[Row]) -> dict[str, Row]:
    """Rows by name, in the order of their first one."""
    found: dict[str, Row] = {}
    for row in rows:
        found[row.name] = found[row.name].merged(row) if row.name in found else row
    return found


def one_line(error: BaseException) -> str:
    """Type and message of an error, in one line of 200 characters or less."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
