"""Files that receive the output of a muxer in complete fragments."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from os import SEEK_CUR, SEEK_SET
from pathlib import Path


class FragmentFile:
    """A file that buffers the output of a muxer until `commit`, which the caller calls at the end of each fragment.

    When a film is complete, the muxer appends an index and then overwrites a few bytes of the header, which refer to
    it. The file plays at every moment: to its last fragment before that write, and by its index afterwards.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file. Raises OSError with the path. size: the bytes that are on disk."""
        self.path = path
        self.failed = False
        self.size = self._at = 0
        self._pieces: list[tuple[int, bytes]] = []
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise cannot_write(error, path) from error

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Buffers bytes at the current position (called by the muxer)."""
        self._pieces.append((self._at, bytes(data)))
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Moves the current position (called by the muxer)."""
        end = max([self.size, *(at + len(piece) for at, piece in self._pieces)])
        self._at = offset + (0 if whence == SEEK_SET else self._at if whence == SEEK_CUR else end)
        return self._at

    def tell(self) -> int:
        """Returns the current position (called by the muxer)."""
        return self._at

    def commit(self) -> None:
        """Writes the buffered bytes to disk. Raises OSError after removing what was written of them."""
        if not self._pieces:
            return
        size = self.size
        try:
            # New bytes are on the disk before a rewritten header, which refers to them.
            pieces = sorted(self._pieces, key=lambda piece: piece[0] < self.size)
            for (at, piece), before in zip(pieces, [0, *(at for at, _ in pieces)], strict=False):
                if at < self.size <= before:
                    os.fsync(self._file.fileno())
                self._file.seek(at)
                written = 0
                while written < len(piece):
                    written += self._file.write(memoryview(piece)[written:])
                size = max(size, at + written)
        except OSError as error:
            self.failed = True
            with suppress(OSError):  # a truncated film plays too; the first error is reported
                self._file.truncate(self.size)
            raise stopped_growing(error, self.path, f"{self.size:,} bytes") from error
        self.size = size
        self._pieces.clear()

    def change(self, change: Callable[[bytes], bytes]) -> None:
        """Replaces the buffered bytes that go to the end of the file by what `change` returns for them."""
        new = bytearray()
        for at, piece in self._pieces:
            if at >= self.size:
                new[at - self.size : at - self.size + len(piece)] = piece
        self._pieces = [(at, piece) for at, piece in self._pieces if at < self.size]
        self._pieces.append((self.size, change(bytes(new))))

    def close(self) -> None:
        """Closes the file; buffered bytes are dropped."""
        self._file.close()


def cannot_write(error: OSError, path: Path) -> OSError:
    """Returns the error with a message for a film that cannot be opened."""
    return type(error)(error.errno, f"cannot write the film ({error.strerror}); choose another path", str(path))


def stopped_growing(error: OSError, path: Path, size: str) -> OSError:
    """Returns the error with a message for a film that was written up to `size`."""
    return type(error)(
        error.errno,
        f"the film stopped growing at {size} ({error.strerror}); "
        "the part on disk is playable; free some space or choose another disk",
        str(path),
    )
