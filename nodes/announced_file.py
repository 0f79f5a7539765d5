"""A film's file that says how far it has grown while it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..longlive_core.pipeline.decode import DecodedFrame
from ..longlive_core.pipeline.write import NewFile, Written
from ..longlive_core.types import Block
from .films import RunningFilm


class AnnouncedFile(NewFile):
    """A film's file that says how far it has grown after every frame, or copied block, that is written to it."""

    def __init__(self, file: NewFile, film: RunningFilm) -> None:
        super().__init__(file.writer)
        self._file, self._film = file, film

    def is_written(self, block: Block) -> bool:
        return self._file.is_written(block)

    def write(self, frame: DecodedFrame) -> Written:
        if frame.first:
            self._film.blocks.append((frame.block.video_start, self.writer.bytes))
        written = self._file.write(frame)
        self.announce(state="making")
        return written

    @contextmanager
    def growing(self) -> Iterator[AnnouncedFile]:
        """Closes the file at the end, however it ends, and tells its last length."""
        try:
            yield self
        finally:
            try:
                self._file.close(self.writer.frames)
            finally:
                self.announce()

    def announce(self, **changes: Any) -> None:  # noqa: ANN401
        """Tells how long the file is now."""
        self._film.update(bytes=self.writer.bytes, frames=self.writer.frames, **changes)
