"""The writing stage: writes decoded frames into the film's file, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..types import Block, BlockSpec
from ..video import FilmWriter
from .decode import DecodedFrame


class Written(NamedTuple):
    """Video frames that were written for a block; `frames` `[T, H, W, 3]` uint8, None if they were copied."""

    block: BlockSpec
    video_frames: int
    frames: Tensor | None


class NewFile:
    """A film's file, to which decoded frames are written in order."""

    def __init__(self, writer: FilmWriter) -> None:
        self.writer = writer

    def is_written(self, block: Block) -> bool:  # noqa: ARG002
        """Whether the block need not be decoded. Call it once for every block, in order."""
        return False

    def write(self, frame: DecodedFrame) -> Written:
        """Writes a decoded frame. Every block begins with a key frame, so that the film's next file can copy it.

        Raises OSError if the disk is full.
        """
        assert frame.frames is not None
        if frame.first:
            self.writer.start_block()
        frames = frame.frames.wait()
        self.writer.write(frames)
        return Written(frame.block, len(frames), frames)

    def close(self, video_frames: int) -> None:  # noqa: ARG002
        """Closes the file, which has `video_frames` frames. Raises OSError."""
        self.writer.close()

    def abandon(self) -> None:
        """Closes the file as it is, without writing to it: it is another process's by now."""
        self.writer.abandon()

    def discard(self, path: Path) -> None:
        """Closes the file at `path`, to which nothing was written, and removes it."""
        self.close(0)
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


def write(decoded: Iterable[DecodedFrame], file: NewFile) -> Iterator[Written]:
    """Writes decoded frames and yields each one after it is written."""
    for frame in decoded:
        yield file.write(frame)
