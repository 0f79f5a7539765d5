"""What a film's file holds, block by block, so that the next cut of the film copies what is the same in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..types import BlockSpec
from ..video import Reel
from .take import FOOTAGE, Take

FORMAT = "longlive-footage-1"
BEFORE = "before"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a film is compressed: frames of another delivery cannot follow its own."""

    codec: str
    quality: str


class FootageLog:
    """Writes down which blocks a film's file holds, each when its last frame is handed to the encoder."""

    def __init__(self, path: Path, delivery: Delivery) -> None:
        """Begins anew. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="ascii", newline="\n")
        self._line(json.dumps({"format": FORMAT, **asdict(delivery)}))

    def add(self, digest: str) -> None:
        """The next block. Raises OSError."""
        self._line(digest)

    def close(self) -> None:
        self._file.close()

    def _line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()


class Footage:
    """A film that was made of a take before, which may be torn, and the digests of its blocks.

    reach: how many blocks before a block its pixels depend on.
    """

    def __init__(self, reel: Reel, digests: Sequence[str], reach: int) -> None:
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


class Cutting:
    """The films of a take before and while a new cut is written.

        cutting = Cutting(take, film, delivery)
        footage = cutting.open(reach)           # a film as it was; None where there is none
        log = cutting.log()                     # which the new cut is noted in
        ...
        cutting.close(frames)                   # the new cut is written as far as it goes

    The old film lies in the take's folder meanwhile, and goes when the new one holds as much: after a kill it is there
    for the next cut. Nothing is lost with it: films are made of the take's blocks.
    """

    def __init__(self, take: Take, film: Path, delivery: Delivery) -> None:
        self._film, self._delivery, self._own = film, delivery, take.film
        self._folder = take.folder / FOOTAGE
        self._before = self._folder / f"{BEFORE}{film.suffix}"
        self._footage: Footage | None = None
        self._frames = 0

    def open(self, reach: int) -> Footage | None:
        """The film of the take at this place, moved out of the way, or the take's own film elsewhere, where it lies.

        Where there is none that can be read, the new one is made whole.
        """
        if not self._noted(self._before).exists():
            self._set_aside()
        for film in (self._before, self._own):
            try:
                reel, digests = Reel(film), self._digests(film)
            except (OSError, ValueError):
                continue
            self._frames = reel.frames if film == self._before else 0
            self._footage = Footage(reel, digests, reach)
            return self._footage
        self._forget()
        return None

    def log(self) -> FootageLog:
        """Raises OSError."""
        return FootageLog(self._noted(self._film), self._delivery)

    def close(self, frames: int) -> None:
        """The new cut has so many frames: the old film goes, unless it has more."""
        if self._footage is not None:
            self._footage.reel.close()
        if frames >= self._frames:
            self._forget()

    def _noted(self, film: Path) -> Path:
        return self._folder / f"{film.name}.txt"

    def _set_aside(self) -> None:
        with suppress(OSError):
            _remove(self._before)
            if self._noted(self._film).exists() and self._film.exists():
                os.replace(self._film, self._before)
                os.replace(self._noted(self._film), self._noted(self._before))

    def _digests(self, film: Path) -> list[str]:
        """Raises OSError and ValueError."""
        head, *digests = self._noted(film).read_text("ascii").splitlines() or [""]
        if json.loads(head) != {"format": FORMAT, **asdict(self._delivery)}:
            raise ValueError(f"{film} is compressed otherwise")
        return digests

    def _forget(self) -> None:
        for path in (self._before, self._noted(self._before)):
            with suppress(OSError):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
