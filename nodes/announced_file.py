"""A film's file that says how far it has grown while it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..longlive_core.pipeline.decode import DecodedFrame
from ..longlive_core.pipeline.write import NewFile, Written
from ..longlive_core.video import FilmWriter
from .films import RunningFilm


class AnnouncedFile(NewFile):
    """A film's file that says how far it has grown after every frame that is written to it."""

    def __init__(self, writer: FilmWriter, film: RunningFilm) -> None:
        super().__init__(writer)
        self._film = film

    def write(self, frame: DecodedFrame) -> Written:
        if frame.first:
            self._film.blocks.append((frame.block.video_start, self.writer.bytes))
        written = super().write(frame)
        self.announce(state="making")
        return written

    @contextmanager
    def growing(self) -> Iterator[AnnouncedFile]:
        """Closes the file at the end, however it ends, and tells its last length."""
        try:
            with self.writer:
                yield self
        finally:
            self.announce()

    def announce(self, **changes: Any) -> None:  # noqa: ANN401
        """Tells how long the file is now."""
        self._film.update(bytes=self.writer.bytes, frames=self.writer.frames, **changes)
