"""A lock that lets only one process at a time change a take, on any machine that shares its folder.

A take that is being made has a file `in_use.1`, the claim, which names the process that made it (`Holder`). The process
rewrites the file every BEAT_SECONDS. If it has ended, or wrote nothing for STALE_SECONDS, whoever wants the take makes
`in_use.2` and then removes `in_use.1`:

    in_use.1                  the holder has not written for a minute
    in_use.1   in_use.2       of all who try to make in_use.2, one succeeds
               in_use.2       from here on the first holder's `check` fails, if it wakes up

A file that must not exist yet is made by one process only, also on NFS and SMB, where locks of the operating system may
be missing, local to a machine, or outlive it. Times are compared with that of a file which is written at that moment
into the same folder, so that the clocks of the machines do not matter.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread, current_thread
from types import TracebackType
from weakref import finalize

from .holder import Holder

PREFIX, PROBE = "in_use.", "probe_"
# The file that earlier versions locked. It means nothing.
OLD_FILE = "in_use"
BEAT_SECONDS, STALE_SECONDS = 10.0, 60.0
ATTEMPTS = 20


class TakenOverError(OSError):
    """Another process has taken over the take, because this one did not write to it for STALE_SECONDS."""


class TakeLock:
    """An exclusive lock on a take's folder, held until `release` or until the process ends.

        with TakeLock(folder) as lock:
            ...
            lock.check()    # before each write

    `release` removes a folder that has no other file.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the folder if necessary and locks it.

        Raises BlockingIOError if it is locked already, by this process or another one, and OSError if the folder cannot
        be written.
        """
        self.folder = folder
        self._path, self._text = _claim(folder)
        stop = Event()
        thread = Thread(target=_beat, args=(self._path, self._text, stop), daemon=True, name="take lock")
        # Neither the thread nor this refers to the lock, so that a lock which nobody has any more is released.
        self._release = finalize(self, _release, self._path, self._text, stop, thread)
        thread.start()

    def check(self) -> None:
        """Raises TakenOverError if another process has taken over the take."""
        if _read(self._path) != self._text:
            raise TakenOverError(
                f"{self.folder} was taken over by another process, because this one, {os.getpid()}, did nothing for "
                f"{STALE_SECONDS:.0f} s: it was paused, or its disk was not reached; nothing more is written here"
            )

    def release(self) -> None:
        """Releases the lock; a second call does nothing."""
        self._release()

    def __enter__(self) -> TakeLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.release()


def lock_files(folder: Path) -> list[Path]:
    """Lists the files of locks in a folder, which are no part of a take."""
    return [path for path in folder.iterdir() if path.name == OLD_FILE or path.name.startswith(PREFIX)]


def _claim(folder: Path) -> tuple[Path, str]:
    """Makes the claim of this process; returns its file and what is in it. Raises as `TakeLock`."""
    holder = Holder.of_this_process()
    for _ in range(ATTEMPTS):
        folder.mkdir(exist_ok=True)
        before = _claims(folder)
        number, newest = before[-1] if before else (0, None)
        path = folder / f"{PREFIX}{number + 1}"
        try:
            if newest is not None and not _is_abandoned(newest):
                raise BlockingIOError(_refusal(newest))
            file = path.open("x", encoding="utf-8")
        except (FileNotFoundError, FileExistsError):
            continue  # released, or claimed, at this moment
        with suppress(OSError), file:  # on a full disk an empty file is a claim, too
            file.write(holder.text)
        try:
            # A directory that is cached may have shown claims that are long gone.
            if _claims(folder)[-1][1] == path and (newest is None or _read(newest) is not None):
                for _, older in before:
                    _remove(older)
                return path, _read(path) or ""
        except BaseException:
            _remove(path)
            raise
        _remove(path)
    raise BlockingIOError(f"{folder} is claimed and released again and again by other processes; try again")


def _claims(folder: Path) -> list[tuple[int, Path]]:
    """The numbers and files of the claims in a folder, in order."""
    numbers = ((path.name.removeprefix(PREFIX), path) for path in folder.glob(f"{PREFIX}*"))
    return sorted((int(number), path) for number, path in numbers if number.isdecimal())


def _is_abandoned(claim: Path) -> bool:
    """Whether the process of a claim has ended or has not written for STALE_SECONDS. Raises OSError."""
    # An NFS client asks the server for the age of a file when it opens it, not whenever the age is read.
    with claim.open("rb") as file:
        holder, written = Holder.parse(file.read().decode("utf-8", "replace")), os.fstat(file.fileno()).st_mtime
    if holder is not None and holder.has_ended:
        return True
    # Also if the server's clock was set back: a holder that lives would have written since.
    return abs(_now_in(claim.parent) - written) > STALE_SECONDS


def _now_in(folder: Path) -> float:
    """The time by the clock that dates the files in a folder. Raises OSError."""
    probe = folder / f"{PREFIX}{PROBE}{secrets.token_hex(8)}"
    try:
        with probe.open("xb") as file:
            with suppress(OSError):  # on a full disk the time at which it was made will do
                file.write(b"\n")
                file.flush()
            return os.fstat(file.fileno()).st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _refusal(claim: Path) -> str:
    holder = Holder.parse(_read(claim) or "")
    who = "" if holder is None else f" ({holder.pid} on {holder.host})"
    elsewhere = holder is not None and not holder.is_here
    end = f"; if that machine is gone, wait for {STALE_SECONDS:.0f} s" if elsewhere else ""
    return f"{claim.parent} is being made by another process{who}; wait for it or stop it, and try again{end}"


def _read(path: Path) -> str | None:
    """What is in a claim; None if it was removed. An NFS client answers from its memory unless the file is opened."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise


def _remove(path: Path) -> None:
    """Removes a claim, which another process may just be reading: Windows refuses to remove it then."""
    for _ in range(ATTEMPTS):
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
            return
        time.sleep(0.02)
    path.unlink(missing_ok=True)


def _beat(path: Path, text: str, stop: Event) -> None:
    """Rewrites a claim until it is another process's; the server then dates it, not the clock of this machine."""
    while not stop.wait(BEAT_SECONDS):
        with suppress(OSError), path.open("r+", encoding="utf-8") as file:
            if file.read() != text:
                return
            file.seek(0)
            file.write(text)
            if not text:
                os.utime(path)


def _release(path: Path, text: str, stop: Event, thread: Thread) -> None:
    stop.set()
    if thread.is_alive() and thread is not current_thread():  # which may be the one that collects garbage
        thread.join()
    folder = path.parent
    with suppress(OSError):
        if _read(path) != text:
            return
        if all(file in lock_files(folder) for file in folder.iterdir()):
            for file in (folder / OLD_FILE, *folder.glob(f"{PREFIX}{PROBE}*")):
                file.unlink(missing_ok=True)
        _remove(path)
        folder.rmdir()  # raises if the folder has other files
