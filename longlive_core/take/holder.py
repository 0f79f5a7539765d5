"""The process that holds a take: how a claim names it, and whether it still runs."""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

if sys.platform == "win32":
    import ctypes

BOOT_ID, PID_NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/pid"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a take.

    host: the name of its machine, for people. machine: equal in two processes only if each can see the other. started:
    when the process began, in the system's own count, or empty. nonce: tells two claims of one process apart.
    """

    host: str
    machine: str
    pid: int
    started: str
    nonce: str

    @classmethod
    def of_this_process(cls) -> Holder:
        """This process, with a new nonce."""
        pid = os.getpid()
        return cls(platform.node(), _machine(), pid, _start_of(pid) or "", secrets.token_hex(8))

    @classmethod
    def parse(cls, text: str) -> Holder | None:
        """Reads the `text` of a holder; None if it is incomplete, as while it is written."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    @property
    def text(self) -> str:
        """What a claim's file contains."""
        return json.dumps(asdict(self)) + "\n"

    @property
    def is_here(self) -> bool:
        """Whether the process is one of this machine, which can see whether it runs."""
        return self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended; that of another machine never is."""
        if not self.is_here:
            return False
        started = _start_of(self.pid)
        # A system gives the numbers of ended processes to new ones, which began later.
        return started is None or bool(self.started and started and started != self.started)


def _machine() -> str:
    """The running system; containers that cannot see each other's processes are different machines."""
    boot = [platform.node()]
    with suppress(OSError):
        boot += [BOOT_ID.read_text().strip(), os.readlink(PID_NAMESPACE)]
    return " ".join(boot if len(boot) > 1 else [*boot, f"{uuid.getnode():x}"])


def _start_of(pid: int) -> str | None:
    """When a process of this machine began; None if no such process runs, empty if the system does not say."""
    if sys.platform == "win32":
        return "" if _runs_on_windows(pid) else None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # a process of another user
        return ""
    try:
        # The name, in brackets, may have spaces. Behind it: the state, and as the 20th field the time in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


if sys.platform == "win32":

    def _runs_on_windows(pid: int) -> bool:
        """os.kill would end the process there."""
        synchronize, access_denied, timeout = 0x100000, 5, 0x102
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        process = kernel.OpenProcess(synchronize, False, pid)
        if not process:
            return ctypes.get_last_error() == access_denied
        try:
            return kernel.WaitForSingleObject(process, 0) == timeout
        finally:
            kernel.CloseHandle(process)
