"""Writes a film again: copies the packets of blocks that its previous file has, and decodes the others."""

from __future__ import annotations

from collections.abc import Callable

from ..pipeline.decode import DecodedFrame
from ..pipeline.write import NewFile, Written
from ..take.block_file import latents_digest
from ..types import Block
from ..video import FilmWriter
from .film_index import PreviousFilm


class ReusingFile(NewFile):
    """A new file of a film that copies blocks from the film's previous file.

    The frames equal those of decoding every block, bit for bit: a block is copied only if all blocks that its pixels
    depend on are the same in both files. `copied` counts the copied blocks.
    """

    def __init__(
        self, previous: PreviousFilm, open_writer: Callable[[], FilmWriter], reach: int, *, copy: bool = True
    ) -> None:
        """Moves the previous file into the take's folder and opens the new file.

        reach: the number of preceding blocks that the pixels of a block depend on. copy: false decodes every block but
        still indexes the new file. Raises what `open_writer` raises, after moving the previous file back.
        """
        self._previous, self._digests, self.copied = previous, list[str](), 0
        index = previous.open(reach)
        self._index_writer = previous.write_index()
        try:
            super().__init__(open_writer())
        except BaseException:
            self._index_writer.close()
            previous.restore()
            raise
        self._index = index if copy and index is not None and self.writer.fits(index.packets) else None

    def is_written(self, block: Block) -> bool:
        """Whether the previous file has the block's frames. Call it once for every block, in order."""
        self._digests.append(latents_digest(block.latents.cpu()))
        return self._index is not None and self._index.has(block.spec, self._digests)

    def write(self, frame: DecodedFrame) -> Written:
        """Writes a decoded frame, or copies the packets of a block that was not decoded. Raises OSError."""
        if frame.frames is not None:
            written = super().write(frame)
        else:
            assert self._index is not None
            start, count = frame.block.video_start, frame.block.video_frames
            self.writer.start_block()
            self.writer.copy(self._index.packets, start, start + count)
            self.copied += 1
            written = Written(frame.block, count, None)
        if frame.last:
            self._index_writer.add(self._digests[frame.block.index])
        return written

    def close(self, video_frames: int) -> None:
        """Closes the file and completes its index. Raises OSError; the index then describes an incomplete file."""
        try:
            super().close(video_frames)
            self._index_writer.end()
        finally:
            self._index_writer.close()
            self._previous.close(video_frames)
