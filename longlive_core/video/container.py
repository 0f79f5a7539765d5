"""A film to write, whatever its codec."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .audio import Audio
from .codecs import CODECS, check_path, choose_quality
from .image_sequence import PictureWriter
from .packets import PacketSource
from .writer import VideoWriter


class FilmWriter(Protocol):
    """Takes frames while they come. Sizes in pixels; `frames` counts what was taken."""

    width: int
    height: int
    frames: int

    def start_block(self) -> None:
        """The next frame can be decoded without those before it."""
        ...

    def write(self, frames: Tensor | NDArray[np.uint8]) -> None:
        """The next frames `[T, height, width, 3]`, uint8. Raises ValueError for others, OSError on a full disk."""
        ...

    def fits(self, reel: PacketSource) -> bool:
        """Whether `copy` takes this film's frames."""
        ...

    def copy(self, reel: PacketSource, start: int, stop: int) -> None:
        """The next frames are [start, stop) of a film made before, to the bit. Raises ValueError where it does not fit.

        `start` is one of its key frames, and so is `stop`, or the film's end.
        """
        ...

    def close(self) -> None:
        """The film is on disk; twice is harmless."""
        ...

    def __enter__(self) -> FilmWriter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None: ...


def open_film(
    path: Path | str,
    *,
    width: int,
    height: int,
    fps: int | Fraction = 24,
    codec: str = "h264",
    quality: str = "high",
    crf: int | None = None,
    audio: Audio | None = None,
    metadata: Mapping[str, str] | None = None,
) -> FilmWriter:
    """Begins a film in one of `CODECS` at a path that has the codec's extension: a file, or for png a folder.

    Raises what `VideoWriter` and `PictureWriter` do, and ValueError for a path of another extension, before anything
    is opened.
    """
    check_path(path, codec)
    if CODECS[codec].encoders:
        return VideoWriter(
            path,
            width=width,
            height=height,
            fps=fps,
            codec=codec,
            quality=quality,
            crf=crf,
            audio=audio,
            metadata=metadata,
        )
    choose_quality(codec, quality, crf)
    return PictureWriter(path, width=width, height=height, fps=fps, audio=audio, metadata=metadata)
