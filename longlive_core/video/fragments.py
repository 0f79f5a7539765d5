"""What a muxer writes, on disk in whole pieces."""

from __future__ import annotations

from contextlib import suppress
from os import SEEK_CUR, SEEK_SET
from pathlib import Path


class FragmentFile:
    """What the muxer writes, put on disk in whole pieces: `commit` is called where the bytes end a fragment.

    It has no `seek`, so that the muxer never goes back to what is on disk.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError that names the path."""
        self.path = path
        self.failed = False
        self._size = self._at = 0
        self._pieces: list[tuple[int, bytes]] = []
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise cannot_write(error, path) from error

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Called by the muxer."""
        self._pieces.append((self._at, bytes(data)))
        self._at += len(data)
        return len(data)

    def commit(self) -> None:
        """Everything written so far is whole: put it on disk. Raises OSError and takes a half-written piece back."""
        if not self._pieces:
            return
        size = self._size
        try:
            # What is new comes first: a header that is written again tells of it.
            for at, piece in sorted(self._pieces, key=lambda piece: piece[0] < self._size):
                self._file.seek(at)
                written = 0
                while written < len(piece):
                    written += self._file.write(memoryview(piece)[written:])
                size = max(size, at + written)
        except OSError as error:
            self.failed = True
            with suppress(OSError):  # a torn end plays too; the first error is the one to tell
                self._file.truncate(self._size)
            raise stopped_growing(error, self.path, f"{self._size:,} bytes") from error
        self._size = size
        self._pieces.clear()

    def close(self) -> None:
        self._file.close()


class PatchedFile(FragmentFile):
    """Lets the muxer write its header again when all is written: webm puts the duration and an index there."""

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Called by the muxer."""
        end = max([self._size, *(at + len(piece) for at, piece in self._pieces)])
        self._at = offset + (0 if whence == SEEK_SET else self._at if whence == SEEK_CUR else end)
        return self._at

    def tell(self) -> int:
        """Called by the muxer."""
        return self._at


def cannot_write(error: OSError, path: Path) -> OSError:
    """The same error in words, for a film that cannot be begun."""
    return type(error)(error.errno, f"cannot write the film ({error.strerror}); choose another path", str(path))


def stopped_growing(error: OSError, path: Path, size: str) -> OSError:
    """The same error in words, for a film that has come as far as `size`."""
    return type(error)(
        error.errno,
        f"the film stopped growing at {size} ({error.strerror}); "
        "what is written plays; free some space or choose another disk",
        str(path),
    )
