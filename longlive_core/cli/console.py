"""The terminal: exit codes, progress and notes while a film is made, and signals that ask it to stop."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from .progress_bar import ProgressBar

CHECK_FAILED, BAD_INPUT, STOPPED = 1, 2, 130


@contextmanager
def job_hooks(args: argparse.Namespace) -> Generator[tuple[ProgressBar, dict[str, Any]], None, None]:
    """Yields a progress bar and the `on_progress`, `on_note` and `should_stop` of a `Job` that show on the terminal.

    Its `leader` is among them, which `run_on_ranks` puts into the arguments.
    """
    bar = ProgressBar(sys.stderr)

    def print_note(note: str) -> None:
        bar.end()
        print(f"note: {note}", flush=True)

    with stop_signals() as should_stop:
        hooks = {"on_progress": bar.show, "on_note": print_note, "should_stop": should_stop}
        yield bar, {**hooks, "leader": args.leader}


@contextmanager
def stop_signals() -> Generator[Callable[[], bool], None, None]:
    """Yields a function that returns whether to stop: the first Ctrl-C (or TERM) sets it, the second one interrupts."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stopped_early() -> int:
    """Prints that a command was stopped before it wrote anything; returns the exit code."""
    print("longlive: stopped; nothing was written", file=sys.stderr)
    return STOPPED
