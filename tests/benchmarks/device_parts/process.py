"""A part's process: its events from standard output, and its standard error in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from .plan import Part
from .supervise import Event

FOLDER = Path(__file__).resolve().parents[1]
GRACE = 10.0
"""Seconds in which a process that has no more events may end by itself."""


class PartProcess:
    """A `Child`. log: the file of its standard error."""

    def __init__(self, part: Part, first: int, without: Sequence[str], log: Path, *, toy: bool) -> None:
        command = [sys.executable, "-m", "device_parts", part.name, "--first", str(first), *["--toy"] * toy]
        self._log = log
        with log.open("a" if first else "w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [*command, "--without", *without],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=FOLDER,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._lines: Queue[str | None] = Queue()
        self._grace = 0.0
        Thread(target=self._read, daemon=True).start()

    def event(self, timeout: float) -> Event | None:
        """See `Child.event`."""
        try:
            line = self._lines.get(timeout=timeout)
        except Empty:
            raise TimeoutError from None
        if line is None:
            self._grace = GRACE
            return None
        found: Event = json.loads(line)
        self._grace = GRACE if found["event"] == "end" else 0.0
        return found

    def end(self) -> str:
        """See `Child.end`."""
        try:
            self._process.wait(self._grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        said = self._log.read_text("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
        return f"the process ended with {code}: {last[:200]}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)
