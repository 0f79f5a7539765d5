"""Writes a film again: copies the packets of blocks that its earlier files have, and decodes the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..pipeline.decode import DecodedFrame
from ..pipeline.write import NewFile, Written
from ..take.block_file import latents_digest
from ..types import Block
from ..video import FilmWriter
from .film_index import FilmIndex, FilmIndexWriter


class EarlierFiles(Protocol):
    """The earlier files of a film, before and while a new file is written: `PreviousFilm` or `NumberedFilms`."""

    def open(self, reach: int, /) -> Sequence[FilmIndex]:
        """Opens the earlier files. reach: the number of preceding blocks that the pixels of a block depend on."""
        ...

    def write_index(self) -> FilmIndexWriter:
        """Starts the index of the new file. Raises OSError."""
        ...

    def restore(self) -> None:
        """Ends a film whose new file could not be opened."""
        ...

    def close(self, frames: int, /) -> None:
        """Ends the film. frames: how many the new file has."""
        ...


class ReusingFile(NewFile):
    """A new file of a film that copies blocks from the film's earlier files.

    The frames equal those of decoding every block, bit for bit: a block is copied only if all blocks that its pixels
    depend on are the same in both files. `copied` counts the copied blocks.
    """

    def __init__(
        self, previous: EarlierFiles, open_writer: Callable[[], FilmWriter], reach: int, *, copy: bool = True
    ) -> None:
        """Opens the earlier files and the new file.

        reach: the number of preceding blocks that the pixels of a block depend on. copy: false decodes every block but
        still indexes the new file. Raises what `open_writer` raises, after `restore` of the earlier files.
        """
        self._previous, self._digests, self.copied = previous, list[str](), 0
        indexes = previous.open(reach)
        self._index_writer = previous.write_index()
        try:
            super().__init__(open_writer())
        except BaseException:
            self._index_writer.close()
            previous.restore()
            raise
        self._indexes = [index for index in indexes if copy and self.writer.fits(index.packets)]
        self._sources: dict[int, FilmIndex] = {}

    def is_written(self, block: Block) -> bool:
        """Whether an earlier file has the block's frames. Call it once for every block, in order."""
        self._digests.append(latents_digest(block.latents.cpu()))
        source = next((index for index in self._indexes if index.has(block.spec, self._digests)), None)
        if source is not None:
            self._sources[block.index] = source
        return source is not None

    def write(self, frame: DecodedFrame) -> Written:
        """Writes a decoded frame, or copies the packets of a block that was not decoded. Raises OSError."""
        if frame.frames is not None:
            written = super().write(frame)
        else:
            source = self._sources.pop(frame.block.index)
            start, count = frame.block.video_start, frame.block.video_frames
            self.writer.start_block()
            self.writer.copy(source.packets, start, start + count)
            self.copied += 1
            written = Written(frame.block, count, None)
        if frame.last:
            self._index_writer.add(self._digests[frame.block.index])
        return written

    def abandon(self) -> None:
        """See `NewFile.abandon`; index and previous file stay as they are, too."""
        super().abandon()
        self._index_writer.close()

    def discard(self, path: Path) -> None:
        """See `NewFile.discard`; the film's previous file comes back to its place."""
        super().discard(path)
        self._previous.restore()

    def close(self, video_frames: int) -> None:
        """Closes the file and completes its index. Raises OSError; the index then describes an incomplete file."""
        try:
            super().close(video_frames)
            self._index_writer.end()
        finally:
            self._index_writer.close()
            self._previous.close(video_frames)
