"""Which blocks a film's file holds, so that the film's next file copies the blocks that are the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..take.take import FOOTAGE, Take
from ..types import BlockSpec
from ..video import PacketSource
from ..video.checksum import Checksum, checksums, is_ours

FORMAT = "longlive-footage-1"
BEFORE = "before"
END = "end"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a film is compressed. Packets of one encoding cannot follow those of another."""

    codec: str
    quality: str


class FilmIndexWriter:
    """Records which blocks a film's file holds, each when its last frame is handed to the encoder.

    Each record has the size and checksum of the file so far, so that another file of the same name is not mistaken
    for this one.
    """

    def __init__(self, path: Path, film: Path, encoding: Encoding) -> None:
        """Starts an empty index. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._head = json.dumps({"format": FORMAT, **asdict(encoding)})
        self._film, self._checksum = film, Checksum(film)
        self._records: list[tuple[str, int]] = []
        self._file = path.open("w", encoding="ascii", newline="\n")
        self._line(self._head)

    def add(self, digest: str) -> None:
        """Records the next block. Raises OSError."""
        size, crc = self._checksum.update()
        self._records.append((digest, size))
        self._line(f"{digest} {size} {crc}")

    def end(self) -> None:
        """Writes every record again for the closed film, whose header may have changed. Raises OSError."""
        records = [*self._records, (END, Checksum(self._film).update()[0])]
        sums = checksums(self._film, [size for _, size in records])
        self._file.seek(0)
        self._file.truncate()
        self._line(self._head)
        for (digest, size), crc in zip(records, sums, strict=True):
            self._line(f"{digest} {size} {crc}")

    def close(self) -> None:
        """Closes the index; twice is harmless."""
        self._file.close()

    def _line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()


def read_index(path: Path, film: Path, encoding: Encoding) -> tuple[str, ...]:
    """The digests of the blocks that a film's file holds completely, as far as its bytes are the recorded ones.

    Raises OSError, and ValueError for a film of another encoding or a file that is no index.
    """
    head, *lines = path.read_text("ascii").splitlines() or [""]
    if json.loads(head) != {"format": FORMAT, **asdict(encoding)}:
        raise ValueError(f"{film} has another codec or quality")
    records = [line.split() for line in lines if len(line.split()) == 3]  # the last line may be torn
    sums = checksums(film, [int(size) for _, size, _ in records])
    equal = [crc == int(record[2]) for crc, record in zip(sums, records, strict=True)]
    count = equal.index(False) if False in equal else len(equal)
    # The end of a block is on disk once the next block, or the end of the film, is recorded.
    return tuple(digest for digest, _, _ in records[: max(0, count - 1)])


class FilmIndex:
    """A previous file of a take's film, which may be torn, and the digests of the blocks in it.

    reach: how many blocks before a block its pixels depend on.
    """

    def __init__(self, packets: PacketSource, digests: Sequence[str], reach: int) -> None:
        self.packets = packets
        self._digests = tuple(digests)
        self._reach = reach

    def has(self, block: BlockSpec, digests: Sequence[str]) -> bool:
        """Whether the file holds this very block's frames. digests: of the new film's blocks up to this one."""
        first, end = max(0, block.index - self._reach), block.index + 1
        if tuple(digests[first:end]) != self._digests[first:end]:
            return False
        start, stop = block.video_start, block.video_start + block.video_frames
        return self.packets.can_cut(start) and self.packets.can_cut(stop)


class PreviousFilm:
    """The previous file of a take's film, before and while a new file is written.

        previous = PreviousFilm(take, film, encoding)
        index = previous.open(reach)            # None where no previous file can be used
        writer = previous.write_index()         # records the new file
        ...
        previous.close(frames)                  # the new file is written as far as it will be

    Meanwhile the previous file is in the take's folder. It is removed once the new file has at least as many frames;
    after a kill it is still there for the next attempt. Its frames can always be decoded again from the take's blocks.
    """

    def __init__(self, take: Take, film: Path, encoding: Encoding) -> None:
        self._take, self._film, self._encoding = take, film, encoding
        self._folder = take.folder / FOOTAGE
        self._before = self._folder / f"{BEFORE}{film.suffix}"
        self._index: FilmIndex | None = None
        self._frames = 0

    def open(self, reach: int) -> FilmIndex | None:
        """Moves the previous file at this place into the take's folder, or opens the take's film where it is elsewhere.

        None where neither can be read.
        """
        self._set_aside()
        self._frames = _frames_in(self._before)
        elsewhere = [] if _same(self._take.film, self._film) else [self._take.film]
        for film in (self._before, *elsewhere):
            try:
                digests = read_index(self._index_path(film), film, self._encoding)
                self._index = FilmIndex(PacketSource(film), digests, reach)
                return self._index
            except (OSError, ValueError):
                continue
        return None

    def write_index(self) -> FilmIndexWriter:
        """Starts the index of the new file. Raises OSError."""
        return FilmIndexWriter(self._index_path(self._film), self._film, self._encoding)

    def restore(self) -> None:
        """Moves the previous file back, where no new file could be opened."""
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
        """The index of a film: named after a film beside the take or in it, else also after the film's folder."""
        folder = film.resolve().parent
        if folder in (self._take.folder.resolve().parent, self._folder.resolve()):
            return self._folder / f"{film.name}.txt"
        return self._folder / f"{film.name}.{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}.txt"

    def _set_aside(self) -> None:
        """Moves the film into the take's folder if it is ours and has at least the frames of the one already there."""
        film, before = self._film, self._before
        if not (self._index_path(film).exists() and is_ours(film)) or _frames_in(film) < _frames_in(before):
            return
        with suppress(OSError):
            _remove(self._index_path(before))
            _remove(before)
            os.replace(film, before)
            os.replace(self._index_path(film), self._index_path(before))


def _frames_in(film: Path) -> int:
    """The frames of a film, 0 for a file that cannot be read."""
    try:
        return PacketSource(film).frames
    except (OSError, ValueError):
        return 0


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
