"""Writing: decoded frames go into the film's file, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor

from ..types import Block, BlockSpec
from ..video import FilmWriter
from .decode import DecodedFrame


class Written(NamedTuple):
    """Video frames of a block that the file now has; `frames` `[T, H, W, 3]` uint8, None for frames it had already."""

    block: BlockSpec
    video_frames: int
    frames: Tensor | None


class NewFile:
    """A film's file that takes decoded frames in order."""

    def __init__(self, writer: FilmWriter) -> None:
        self.writer = writer

    def is_written(self, block: Block) -> bool:  # noqa: ARG002
        """Whether the file gets the block's frames without decoding it. Asked once for every block, in order."""
        return False

    def write(self, frame: DecodedFrame) -> Written:
        """Adds a decoded frame. Every block begins with a key frame, so that another file can copy it.

        Raises OSError where the disk is full.
        """
        assert frame.frames is not None
        if frame.first:
            self.writer.start_block()
        frames = frame.frames.wait()
        self.writer.write(frames)
        return Written(frame.block, len(frames), frames)

    def close(self, video_frames: int) -> None:  # noqa: ARG002
        """Closes the file, which has that many frames. Raises OSError."""
        self.writer.close()


def write(decoded: Iterable[DecodedFrame], file: NewFile) -> Iterator[Written]:
    """Writes decoded frames and yields each when the file has it."""
    for frame in decoded:
        yield file.write(frame)
