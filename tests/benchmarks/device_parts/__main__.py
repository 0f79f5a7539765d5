"""Runs the tasks of one part: `python -m device_parts PART [--toy] [--first N] [--without ROW …]`.

Events are JSON lines on standard output: the rows of all tasks, the start of each task, its row, the end. Whatever else
is printed goes to standard error. After an error that CUDA does not recover from, the process ends with `POISONED`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import import_module
from typing import IO, Any

import torch

from .part import Row, Task

POISONED = 75


def main() -> int:
    """Runs the tasks from the first one on, without those of rows that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[])
    arguments = parser.parse_args()
    # Libraries print, also from C; the events keep a standard output of their own.
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
        torch.set_num_threads(1)
    tasks: list[Task] = import_module(f"device_parts.{arguments.part}").tasks(arguments.toy)
    send(events, event="plan", rows=[task.row for task in tasks])
    dropped = set(arguments.without)
    for index, task in enumerate(tasks):
        if index < arguments.first or task.row in dropped:
            continue
        send(events, event="start", index=index)
        row = Row.of(task)
        send(events, event="row", row=row.as_dict())
        if not row.timed:
            dropped.add(row.name)
        if row.status == "failed" and not cuda_works():
            return POISONED
    send(events, event="end")
    return 0


def send(events: IO[str], **values: Any) -> None:  # noqa: ANN401 (JSON)
    """Writes one event."""
    events.write(json.dumps(values) + "\n")


def cuda_works() -> bool:
    """Whether CUDA still takes work: after some errors, such as a wrong address, it never does in this process."""
    if not torch.cuda.is_available():
        return True
    try:
        torch.cuda.synchronize()
        torch.ones(1, device="cuda").item()
    except RuntimeError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
