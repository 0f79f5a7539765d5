"""One process at a time makes a take."""

from __future__ import annotations

import errno
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FILE = "in_use"
# What systems answer where somebody else holds the lock.
LOCK_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK, errno.EWOULDBLOCK)


class TakeLock:
    """A take's folder, claimed by this process until `release`, or until it dies, however it dies.

        with Claim(folder):
            ...

    The system holds the claim on the file `in_use`, which stays behind and means nothing by itself. A folder with
    nothing else in it goes with the claim.
    """

    def __init__(self, folder: Path) -> None:
        """Raises BlockingIOError where another claim is held, of this process or not, and OSError for no such folder
        to be written."""
        folder.mkdir(exist_ok=True)
        self._path = folder / FILE
        self._file: IO[bytes] = self._path.open("ab")
        try:
            _lock(self._file.fileno())
        except OSError as error:
            self._file.close()
            if error.errno in LOCK_HELD:
                said = f"{folder} is being made by another process; wait for it or stop it, and try again"
                raise BlockingIOError(said) from error
            why = f"this disk cannot keep two processes apart ({error.strerror}): put the film elsewhere"
            raise OSError(error.errno, why, str(folder)) from error

    def release(self) -> None:
        """Twice is harmless."""
        if self._file.closed:
            return
        self._file.close()
        with suppress(OSError):
            if [path.name for path in self._path.parent.iterdir()] == [FILE]:
                self._path.unlink()
                self._path.parent.rmdir()

    def __enter__(self) -> TakeLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()


def _lock(file: int) -> None:
    """An exclusive lock that ends with the process. Raises OSError where it is held by another opening of the file."""
    if sys.platform == "win32":
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
