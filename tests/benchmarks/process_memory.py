"""Memory of the current process on Linux."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def memory_mb(field: Literal["VmRSS", "VmHWM"]) -> float:
    """Resident memory (VmRSS) or its peak so far (VmHWM) in MB (10^6 bytes). Raises RuntimeError on other systems.

    The peak of a child process starts at 0, unlike that of getrusage.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        raise RuntimeError("memory is measured in /proc/self/status, which this system does not have: use Linux")
    return int(status.read_text("utf-8").partition(f"{field}:")[2].split()[0]) * 1024 / 1e6
