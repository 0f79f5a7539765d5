"""The bytes of a film, a file or a folder of pictures, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

from .image_folder import OURS, numbered, picture

CHUNK = 1 << 20


class Checksum:
    """Of a film that grows: `read_on` reads what has come since."""

    def __init__(self, film: Path) -> None:
        self._film = film
        self._size = self._crc = self._pictures = 0

    def read_on(self) -> tuple[int, int]:
        """The bytes on disk so far: how many, and their checksum. Raises OSError."""
        if self._film.is_dir():
            while (path := picture(self._film, self._pictures)).is_file():
                self._add(path.read_bytes())
                self._pictures += 1
        elif self._film.is_file():
            with self._film.open("rb") as file:
                file.seek(self._size)
                while data := file.read(CHUNK):
                    self._add(data)
        return self._size, self._crc

    def _add(self, data: bytes) -> None:
        self._size, self._crc = self._size + len(data), crc32(data, self._crc)


def checksums(film: Path, sizes: Sequence[int]) -> list[int | None]:
    """Of a film's first bytes, one for each of the growing sizes; None where there are not as many. Raises OSError."""
    found: list[int | None] = []
    rest, crc, at = b"", 0, 0
    chunks = _chunks(film)
    for size in sizes:
        while at < size:
            rest = rest or next(chunks, b"")
            if not rest:
                break
            taken = rest[: size - at]
            crc, at, rest = crc32(taken, crc), at + len(taken), rest[len(taken) :]
        found.append(crc if at == size else None)
    return found


def is_ours(film: Path) -> bool:
    """Whether nothing but a film is there: a file, or a folder that holds what we write into one."""
    if film.is_dir():
        return all(OURS.fullmatch(path.name) for path in film.iterdir())
    return film.is_file()


def _chunks(film: Path) -> Iterator[bytes]:
    if film.is_dir():
        for path in numbered(film):
            yield path.read_bytes()
        return
    with film.open("rb") as file:
        while data := file.read(CHUNK):
            yield data
