"""CRC-32 checksums of the bytes of a film: a file or a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

from .image_folder import FILM_FILE, numbered_pictures

CHUNK = 1 << 20


class Checksum:
    """A running checksum of a film that is still being written."""

    def __init__(self, film: Path) -> None:
        self._film = film
        self._size = self._crc = self._chunks_read = 0

    def update(self) -> tuple[int, int]:
        """Reads the bytes added since the last call; returns the size and checksum so far. Raises OSError."""
        folder = self._film.is_dir()
        if folder or self._film.is_file():
            for data in _chunks(self._film, self._chunks_read if folder else self._size):
                self._size, self._crc = self._size + len(data), crc32(data, self._crc)
                self._chunks_read += 1
        return self._size, self._crc


def checksums(film: Path, sizes: Sequence[int]) -> list[int | None]:
    """Returns the checksum of the first `size` bytes of a film for each of the increasing `sizes`.

    An entry is None if the film is shorter. Raises OSError.
    """
    crcs: list[int | None] = []
    rest, crc, at = b"", 0, 0
    chunks = _chunks(film)
    for size in sizes:
        while at < size and (rest := rest or next(chunks, b"")):
            data, rest = rest[: size - at], rest[size - at :]
            crc, at = crc32(data, crc), at + len(data)
        crcs.append(crc if at == size else None)
    return crcs


def is_ours(film: Path) -> bool:
    """Returns whether the path holds a film and nothing else: a file, or a folder with only files that we write."""
    return all(FILM_FILE.fullmatch(path.name) for path in film.iterdir()) if film.is_dir() else film.is_file()


def _chunks(film: Path, start: int = 0) -> Iterator[bytes]:
    """Yields the contents of a film from picture `start` of a folder, or byte `start` of a file."""
    if film.is_dir():
        yield from (path.read_bytes() for path in numbered_pictures(film, start))
        return
    with film.open("rb") as file:
        file.seek(start)
        while data := file.read(CHUNK):
            yield data
