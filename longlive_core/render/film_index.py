"""What a film's file holds, block by block, so that the next cut of the film copies what is the same in it."""

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
    """How a film is compressed: frames of another delivery cannot follow its own."""

    codec: str
    quality: str


class FilmIndexWriter:
    """Writes down which blocks a film's file holds, each when its last frame is handed to the encoder.

    With each the bytes that the file has by then are noted: a file that is another film's now is not taken for it.
    """

    def __init__(self, path: Path, film: Path, delivery: Encoding) -> None:
        """Begins anew. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._head = json.dumps({"format": FORMAT, **asdict(delivery)})
        self._film, self._so_far = film, Checksum(film)
        self._noted: list[tuple[str, int]] = []
        self._file = path.open("w", encoding="ascii", newline="\n")
        self._line(self._head)

    def add(self, digest: str) -> None:
        """The next block. Raises OSError."""
        size, crc = self._so_far.read_on()
        self._noted.append((digest, size))
        self._line(f"{digest} {size} {crc}")

    def end(self) -> None:
        """The film is closed, perhaps with a header that was written again: all is noted once more. Raises OSError."""
        noted = [*self._noted, (END, Checksum(self._film).read_on()[0])]
        sums = checksums(self._film, [size for _, size in noted])
        self._file.seek(0)
        self._file.truncate()
        self._line(self._head)
        for (digest, size), crc in zip(noted, sums, strict=True):
            self._line(f"{digest} {size} {crc}")

    def close(self) -> None:
        self._file.close()

    def _line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()


def read_log(path: Path, film: Path, delivery: Encoding) -> tuple[str, ...]:
    """The digests of the blocks that a film's file holds to its end, as far as its bytes are those that were noted.

    Raises OSError, and ValueError for a film of another delivery or a log that is none.
    """
    head, *lines = path.read_text("ascii").splitlines() or [""]
    if json.loads(head) != {"format": FORMAT, **asdict(delivery)}:
        raise ValueError(f"{film} is compressed otherwise")
    noted = [line.split() for line in lines if len(line.split()) == 3]  # the last one may be torn
    sums = checksums(film, [int(size) for _, size, _ in noted])
    true = next((i for i, (crc, line) in enumerate(zip(sums, noted, strict=True)) if crc != int(line[2])), len(noted))
    # A block's end is on disk when the next block's is noted, or the film's end.
    return tuple(digest for digest, _, _ in noted[: max(0, true - 1)])


class FilmIndex:
    """A film that was made of a take before, which may be torn, and the digests of its blocks.

    reach: how many blocks before a block its pixels depend on.
    """

    def __init__(self, reel: PacketSource, digests: Sequence[str], reach: int) -> None:
        self.reel = reel
        self._digests = tuple(digests)
        self._reach = reach

    def has(self, block: BlockSpec, digests: Sequence[str]) -> bool:
        """Whether the file holds this block's very frames. digests: of the new cut's blocks, this one the last."""
        first, end = max(0, block.index - self._reach), block.index + 1
        if tuple(digests[first:end]) != self._digests[first:end]:
            return False
        start, stop = block.video_start, block.video_start + block.video_frames
        return self.reel.can_cut(start) and self.reel.can_cut(stop)


class PreviousFilm:
    """The films of a take before and while a new cut is written.

        cutting = Cutting(take, film, delivery)
        footage = cutting.open(reach)           # a film as it was; None where there is none
        log = cutting.log()                     # which the new cut is noted in
        ...
        cutting.close(frames)                   # the new cut is written as far as it goes

    The old film lies in the take's folder meanwhile, and goes when the new one holds as much: after a kill it is there
    for the next cut. Nothing is lost with it: films are made of the take's blocks.
    """

    def __init__(self, take: Take, film: Path, delivery: Encoding) -> None:
        self._take, self._film, self._delivery = take, film, delivery
        self._folder = take.folder / FOOTAGE
        self._before = self._folder / f"{BEFORE}{film.suffix}"
        self._footage: FilmIndex | None = None
        self._frames = 0

    def open(self, reach: int) -> FilmIndex | None:
        """The film of the take at this place, moved out of the way, or the take's own film elsewhere, where it lies.

        Where there is none that can be read, the new one is made whole.
        """
        self._set_aside()
        self._frames = _frames_in(self._before)
        elsewhere = [] if _same(self._take.film, self._film) else [self._take.film]
        for film in (self._before, *elsewhere):
            try:
                digests = read_log(self._noted(film), film, self._delivery)
                self._footage = FilmIndex(PacketSource(film), digests, reach)
                return self._footage
            except (OSError, ValueError):
                continue
        return None

    def log(self) -> FilmIndexWriter:
        """Raises OSError."""
        return FilmIndexWriter(self._noted(self._film), self._film, self._delivery)

    def restore(self) -> None:
        """There is no new cut: the old film goes back to its place."""
        self._release()
        with suppress(OSError):
            if self._before.exists() and not self._film.exists():
                os.replace(self._before, self._film)
                os.replace(self._noted(self._before), self._noted(self._film))

    def close(self, frames: int) -> None:
        """The new cut has so many frames: the old film goes, unless it has more."""
        self._release()
        if frames >= self._frames:
            for path in (self._noted(self._before), self._before):
                with suppress(OSError):
                    _remove(path)

    def _release(self) -> None:
        if self._footage is not None:
            self._footage.reel.close()

    def _noted(self, film: Path) -> Path:
        """The log of a film: by its name beside the take or in it, else by its whole path too."""
        place = film.resolve().parent
        if place in (self._take.folder.resolve().parent, self._folder.resolve()):
            return self._folder / f"{film.name}.txt"
        return self._folder / f"{film.name}.{hashlib.sha256(str(place).encode()).hexdigest()[:8]}.txt"

    def _set_aside(self) -> None:
        """The film as it is, if it is one of ours, in place of an older one that has no more."""
        film, before = self._film, self._before
        if not (self._noted(film).exists() and is_ours(film)) or _frames_in(film) < _frames_in(before):
            return
        with suppress(OSError):
            _remove(self._noted(before))
            _remove(before)
            os.replace(film, before)
            os.replace(self._noted(film), self._noted(before))


def _frames_in(film: Path) -> int:
    """0 for what cannot be read."""
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
