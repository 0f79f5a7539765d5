"""Earlier files of a take's film that stay where they are, because every new file has a name of its own."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..take.take import FILM_INDEX, Take
from .film_index import Encoding, FilmIndex, FilmIndexWriter, index_suffix, open_index

# How many earlier files are opened, from the newest on: reading one takes time.
OPENED = 4


class NumberedFilms:
    """The earlier files of a take's film, in the folder of the new one, whose name none of them has.

    A film that goes back to an earlier version finds its blocks in the file of that version. The files are only read.
    `error` says why the new file is not indexed, or is None: the film does not need its index.
    """

    def __init__(self, take: Take, film: Path, encoding: Encoding) -> None:
        """film: the path of the new file."""
        self._folder, self._suffix = take.folder / FILM_INDEX, index_suffix(take, film)
        self._film, self._encoding = film, encoding
        self._indexes: list[FilmIndex] = []
        self._writer: _TolerantWriter | None = None

    @property
    def error(self) -> OSError | None:
        """Why the index of the new file is incomplete."""
        return None if self._writer is None else self._writer.error

    def open(self, reach: int) -> list[FilmIndex]:
        """Opens the newest earlier files of the same encoding. The index of a file that is gone is removed."""
        for path in self._earlier():
            film = self._film.with_name(path.name.removesuffix(self._suffix))
            if not film.exists():
                with suppress(OSError):
                    path.unlink()
            elif film != self._film and (index := open_index(path, film, self._encoding, reach)) is not None:
                self._indexes.append(index)
                if len(self._indexes) == OPENED:
                    break
        return self._indexes

    def write_index(self) -> FilmIndexWriter:
        """Starts the index of the new file. Raises OSError."""
        self._writer = _TolerantWriter(self._path, self._film, self._encoding)
        return self._writer

    def restore(self) -> None:
        """Removes the index of a file that could not be opened."""
        self._release()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def close(self, frames: int) -> None:  # noqa: ARG002
        """Closes the earlier files."""
        self._release()

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._film.name}{self._suffix}"

    def _earlier(self) -> list[Path]:
        """The indexes of films in the new film's folder, newest first."""
        found: list[tuple[float, Path]] = []
        for path in self._folder.glob(f"*{self._suffix}"):
            with suppress(OSError):
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found, reverse=True)]

    def _release(self) -> None:
        for index in self._indexes:
            index.packets.close()


class _TolerantWriter(FilmIndexWriter):
    """A `FilmIndexWriter` that stops at its first error instead of raising it."""

    error: OSError | None = None

    def add(self, digest: str) -> None:
        if self.error is None:
            try:
                super().add(digest)
            except OSError as error:
                self.error = error

    def end(self) -> None:
        if self.error is None:
            try:
                super().end()
            except OSError as error:
                self.error = error
