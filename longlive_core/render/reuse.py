"""A film written again: blocks that its file held before are copied as they are compressed, the others decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from typing import NamedTuple

from torch import Tensor

from ..pipeline.decode import DecodedFrame, decode, write
from ..take.block_file import latents_digest
from ..types import Block, BlockSpec
from ..vae import DecodeStream, WanVAE
from ..video import FilmWriter
from .film_index import PreviousFilm


class CutPiece(NamedTuple):
    """A decoded latent frame of a block of this digest; without one, the whole block is to be copied."""

    block: BlockSpec
    digest: str
    decoded: DecodedFrame | None = None


class Written(NamedTuple):
    """So many video frames of a block are in the file; `frames` `[T, H, W, 3]` uint8 where they were decoded for it."""

    block: BlockSpec
    video_frames: int
    frames: Tensor | None


class Recut:
    """The stages of decoding and writing for a film that may have been written before.

    What comes out is what decoding every block gives, to the bit: a block is copied where all blocks that its pixels
    depend on are the same, and where decoding begins anew it begins that far before.
    """

    def __init__(self, cutting: PreviousFilm, vae: WanVAE, block_frames: int, *, copy: bool = True) -> None:
        """copy: false notes what the new file holds and decodes everything. Moves the old film out of the way."""
        self._reach = ceil(vae.config.decoder_reach / block_frames)
        self._cutting = cutting
        footage = cutting.open(self._reach)
        self._footage = footage if copy else None
        self._log = cutting.log()
        self.copied = 0

    def check(self, writer: FilmWriter) -> None:
        """The new film's writer is known: frames that do not fit it are not copied."""
        if self._footage is not None and not writer.fits(self._footage.reel):
            self._footage = None

    def decode(
        self, blocks: Iterable[Block], stream: DecodeStream, should_stop: Callable[[], bool]
    ) -> Iterator[CutPiece]:
        """As `decode`, but blocks that can be copied come as one piece."""
        digests: list[str] = []
        before: deque[Tensor] = deque(maxlen=self._reach)
        decoded = True
        for block in blocks:
            if should_stop():
                return
            digests.append(latents_digest(block.latents.cpu()))
            if self._footage is not None and self._footage.has(block.spec, digests):
                self.copied += 1
                decoded = False
                yield CutPiece(block.spec, digests[-1])
            else:
                if not decoded and not _warm_up(stream, before, should_stop):
                    return
                decoded = True
                for piece in decode([block], stream, should_stop):
                    yield CutPiece(block.spec, digests[-1], piece)
            before.append(block.latents)

    def write(self, pieces: Iterable[CutPiece], writer: FilmWriter) -> Iterator[Written]:
        """As `write`; copied blocks have no frames to show."""
        for piece in pieces:
            if piece.decoded is not None:
                ((_, frames),) = write([piece.decoded], writer)
                written = Written(piece.block, len(frames), frames)
            else:
                assert self._footage is not None
                start, count = piece.block.video_start, piece.block.video_frames
                writer.start_block()
                writer.copy(self._footage.reel, start, start + count)
                written = Written(piece.block, count, None)
            if piece.decoded is None or piece.decoded.last:
                self._log.add(piece.digest)
            yield written

    def abandon(self) -> None:
        """There is no new film."""
        self._log.close()
        self._cutting.restore()

    def close(self, video_frames: int, *, whole: bool) -> None:
        """The new film has so many frames; `whole` where its file could be closed as it should be. Raises OSError."""
        try:
            if whole:
                self._log.end()
        finally:
            self._log.close()
            self._cutting.close(video_frames)


def _warm_up(stream: DecodeStream, before: Iterable[Tensor], should_stop: Callable[[], bool]) -> bool:
    """The stream stands behind these latents, as if the film had been decoded; false after a stop."""
    stream.reset()
    for latents in before:
        for latent in latents.split(1, dim=2):
            if should_stop():
                return False
            stream.feed(latent)
            stream.copies()
    return True
