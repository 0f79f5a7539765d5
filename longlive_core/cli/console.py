"""The terminal: progress and notes while a film is made, and signals that ask it to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from .progress_bar import ProgressBar


@contextmanager
def console() -> Generator[tuple[ProgressBar, Callable[[str], None]], None, None]:
    """A progress bar, and a function that prints a note without tearing the bar."""
    bar = ProgressBar(sys.stderr)

    def note(line: str) -> None:
        bar.end()
        print(f"note: {line}", flush=True)

    yield bar, note


@contextmanager
def stop_signals() -> Generator[Callable[[], bool], None, None]:
    """A function that says whether to stop. The first Ctrl-C (or TERM) asks for a stop, the second interrupts."""
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
