"""A lock that lets only one process at a time change a take."""

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
# The error numbers by which systems report a held lock.
LOCK_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK, errno.EWOULDBLOCK)


class TakeLock:
    """An exclusive lock on a take's folder, held until `release` or until the process ends.

        with TakeLock(folder):
            ...

    The operating system locks the file `in_use`; the existence of that file means nothing. `release` removes a folder
    that has no other file.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the folder if necessary and locks it.

        Raises BlockingIOError if it is locked already, by this process or another one, and OSError if the folder cannot
        be written.
        """
        folder.mkdir(exist_ok=True)
        self._path = folder / FILE
        self._file: IO[bytes] = self._path.open("ab")
        try:
            _lock(self._file.fileno())
        except OSError as error:
            self._file.close()
            if error.errno in LOCK_HELD:
                message = f"{folder} is being made by another process; wait for it or stop it, and try again"
                raise BlockingIOError(message) from error
            message = f"this disk has no file locks ({error.strerror}): write the film to another disk"
            raise OSError(error.errno, message, str(folder)) from error

    def release(self) -> None:
        """Releases the lock; a second call does nothing."""
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
    """Locks a file descriptor exclusively until the process ends. Raises OSError if another descriptor has the lock."""
    if sys.platform == "win32":
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
