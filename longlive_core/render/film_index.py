"""An index of the blocks in a film's file, so that the film's next file can copy the equal blocks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..take.take import FILM_INDEX, PREVIOUS, Take
from ..types import BlockSpec
from ..video import PacketSource
from ..video.checksum import Checksum, checksums, is_ours

FORMAT = "longlive-footage-1"
END = "end"


@dataclass(frozen=True, slots=True)
class Encoding:
    """The codec and quality of a film's file. Packets of different encodings cannot be in one file.

    decoder: a fingerprint of the VAE; empty if the take's model decides which one decodes its film.
    """

    codec: str
    quality: str
    decoder: str = ""

    @property
    def head(self) -> dict[str, str]:
        """The first line of an index."""
        return {"format": FORMAT, **{name: value for name, value in asdict(self).items() if value}}


class FilmIndexWriter:
    """Writes the index of a film's file: one record for each block, when its last frame goes to the encoder.

    Each record has the size and checksum of the file so far, so that another file of the same name is recognised.
    """

    def __init__(self, path: Path, film: Path, encoding: Encoding) -> None:
        """Starts an empty index at `path` for the file `film`. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._head = json.dumps(encoding.head)
        self._film, self._checksum = film, Checksum(film)
        self._records: list[tuple[str, int]] = []
        self._file = path.open("w", encoding="ascii", newline="\n")
        self._line(self._head)

    def add(self, digest: str) -> None:
        """Records the next block by the digest of its latents. Raises OSError."""
        size, crc = self._checksum.update()
        self._records.append((digest, size))
        self._line(f"{digest} {size} {crc}")

    def end(self) -> None:
        """Writes every record again after the film is closed, because closing may change its header. Raises OSError."""
        records = [*self._records, (END, Checksum(self._film).update()[0])]
        sums = checksums(self._film, [size for _, size in records])
        self._file.seek(0)
        self._file.truncate()
        self._line(self._head)
        for (digest, size), crc in zip(records, sums, strict=True):
            self._line(f"{digest} {size} {crc}")

    def close(self) -> None:
        """Closes the index; a second call does nothing."""
        self._file.close()

    def _line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()


def read_index(path: Path, film: Path, encoding: Encoding) -> tuple[str, ...]:
    """Returns the digests of the blocks that are complete in a film's file and whose bytes have the recorded checksums.

    Raises OSError, and ValueError if the film has another encoding or the file is not an index.
    """
    head, *lines = path.read_text("ascii").splitlines() or [""]
    if json.loads(head) != encoding.head:
        raise ValueError(f"{film} has another codec or quality, or another VAE decoded it")
    records = [line.split() for line in lines if len(line.split()) == 3]  # the last line may be incomplete
    sums = checksums(film, [int(size) for _, size, _ in records])
    matches = [crc == int(record[2]) for crc, record in zip(sums, records, strict=True)]
    count = matches.index(False) if False in matches else len(matches)
    # The encoder may still hold frames of the last recorded block, so that block is left out.
    return tuple(digest for digest, _, _ in records[: max(0, count - 1)])


class FilmIndex:
    """A previous file of a take's film, which may be incomplete, and the digests of its blocks.

    reach: the number of preceding blocks that the pixels of a block depend on.
    """

    def __init__(self, packets: PacketSource, digests: Sequence[str], reach: int) -> None:
        self.packets = packets
        self._digests = tuple(digests)
        self._reach = reach

    def has(self, block: BlockSpec, digests: Sequence[str]) -> bool:
        """Whether the file has the frames of a block. digests: those of the new film's blocks up to this one."""
        first, end = max(0, block.index - self._reach), block.index + 1
        if tuple(digests[first:end]) != self._digests[first:end]:
            return False
        start, stop = block.video_start, block.video_start + block.video_frames
        return self.packets.can_cut(start) and self.packets.can_cut(stop)


def open_index(path: Path, film: Path, encoding: Encoding, reach: int) -> FilmIndex | None:
    """Opens a film with its index; returns None if one of them cannot be read or the film has another encoding."""
    try:
        digests = read_index(path, film, encoding)
        return FilmIndex(PacketSource(film), digests, reach)
    except (OSError, ValueError):
        return None


def index_suffix(take: Take, film: Path) -> str:
    """What the name of a film's index has behind the film's name: a digest of its folder if it is not beside the take.

    The indexes are in the folder FILM_INDEX of the take.
    """
    folder = film.resolve().parent
    if folder in (take.folder.resolve().parent, (take.folder / FILM_INDEX).resolve()):
        return ".txt"
    return f".{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}.txt"


def recorded_digests(take: Take, film: Path) -> tuple[str, ...]:
    """Returns the digests of a film's first blocks that its file has; empty if the take has no index of the file."""
    path = take.folder / FILM_INDEX / f"{film.name}{index_suffix(take, film)}"
    try:
        head: dict[str, str] = json.loads(path.read_text("ascii").partition("\n")[0])
        head.pop("format")
        return read_index(path, film, Encoding(**head))
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def is_whole(take: Take) -> bool:
    """Whether the take's film is closed and has every block of the take as chosen; read from its index alone."""
    try:
        film = take.film
        lines = (take.folder / FILM_INDEX / f"{film.name}{index_suffix(take, film)}").read_text("ascii").splitlines()
        *blocks, (end, size, _) = (line.split() for line in lines[1:])
        records = [take.record(spec) for spec in take.plan.blocks]
        made = [None if record is None else record.digest for record in records] == [block[0] for block in blocks]
        return made and end == END and (film.is_dir() or film.stat().st_size == int(size))
    except (OSError, ValueError):
        return False


class PreviousFilm:
    """The previous file of a take's film, before and while a new file is written.

        previous = PreviousFilm(take, film, encoding)
        indexes = previous.open(reach)          # one, or none if no previous file can be used
        writer = previous.write_index()         # records the new file
        ...
        previous.close(frames)                  # the new file has this many frames

    In between, the previous file is in the take's folder. It is removed once the new file has at least as many frames;
    if the process is killed, the next render uses it. Its frames can always be decoded again from the take's blocks.
    """

    def __init__(self, take: Take, film: Path, encoding: Encoding) -> None:
        self._take, self._film, self._encoding = take, film, encoding
        self._folder = take.folder / FILM_INDEX
        self._before = self._folder / f"{PREVIOUS}{film.suffix}"
        self._index: FilmIndex | None = None
        self._frames = 0

    def open(self, reach: int) -> list[FilmIndex]:
        """Opens the index of the previous file, after moving that file from the new film's path into the take's folder.

        Opens the take's own film instead if it has another path, or the film of the take that this one was copied
        from; returns an empty list if none can be read.
        """
        self._set_aside()
        self._frames = _frames_in(self._before)
        beside = self._take.folder.resolve().parent
        indexed = (beside / index.stem for index in sorted(self._folder.glob("*.txt")))
        elsewhere = [film for film in (self._take.film, *indexed) if film.resolve() != self._film.resolve()]
        for film in (self._before, *elsewhere):
            self._index = open_index(self._index_path(film), film, self._encoding, reach)
            if self._index is not None:
                return [self._index]
        return []

    def write_index(self) -> FilmIndexWriter:
        """Starts the index of the new file. Raises OSError."""
        return FilmIndexWriter(self._index_path(self._film), self._film, self._encoding)

    def restore(self) -> None:
        """Moves the previous file back after the new file could not be opened."""
        self._release()
        with suppress(OSError):
            if self._before.exists() and not self._film.exists():
                os.replace(self._before, self._film)
                os.replace(self._index_path(self._before), self._index_path(self._film))

    def close(self, frames: int) -> None:
        """Removes the previous file, unless it has more than the new file's `frames`."""
        self._release()
        if frames >= self._frames:
            for path in (self._index_path(self._before), self._before):
                with suppress(OSError):
                    _remove(path)

    def _release(self) -> None:
        if self._index is not None:
            self._index.packets.close()

    def _index_path(self, film: Path) -> Path:
        """The path of a film's index."""
        return self._folder / f"{film.name}{index_suffix(self._take, film)}"

    def _set_aside(self) -> None:
        """Moves the film into the take's folder if we wrote it and the file there has no more frames."""
        film, before = self._film, self._before
        if not (self._index_path(film).exists() and is_ours(film)) or _frames_in(film) < _frames_in(before):
            return
        with suppress(OSError):
            _remove(self._index_path(before))
            _remove(before)
            os.replace(film, before)
            os.replace(self._index_path(film), self._index_path(before))


def _frames_in(film: Path) -> int:
    """The number of frames of a film; 0 if it cannot be read."""
    try:
        return PacketSource(film).frames
    except (OSError, ValueError):
        return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
