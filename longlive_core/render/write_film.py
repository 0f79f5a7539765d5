"""One film into one file, while its blocks are made."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from time import perf_counter

from ..pipeline.decode import QUEUE_DEPTH, decode, decoder_cuda_stream
from ..pipeline.stages import Mode, Pipeline, in_stage, sample
from ..pipeline.write import NewFile, Written, write
from ..script import BlockPlan
from ..types import SPACE_FACTOR, Block, BlockSpec
from ..vae import DecodeStream, WanVAE
from ..video import open_film
from ..video.contact_sheet import ContactSheet
from .film_index import PreviousFilm
from .reuse import ReusingFile


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a film is: `block` is being written, `video_frames` of `total` are in the file.

    `blocks` and `shots` are those of the whole film; `seconds` have passed since the render began.
    """

    block: BlockSpec
    blocks: int
    shots: int
    video_frames: int
    total: int
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """Video frames written per second so far."""
        return self.video_frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """The time left at the pace so far; infinite before the first frame."""
        if self.video_frames == 0:
            return float("inf")
        return (self.total - self.video_frames) * self.seconds / self.video_frames


class Render:
    """Writes one film into a file.

        render = Render(plan, vae, path, size=(8, 8))
        render.run(generate(model, plan, ...))

    However it ends (complete, stopped, NaN from the model, disk full), every decoded frame is in the file, the file is
    closed and plays, and `video_frames` says how many frames it has.

    Frames are encoded and written in a thread; in mode "async" sampling and decoding have a thread each too. The film
    is the same in every mode, bit for bit.
    """

    def __init__(
        self,
        plan: BlockPlan,
        vae: WanVAE,
        path: Path | str,
        *,
        size: tuple[int, int],
        mode: Mode = "async",
        codec: str = "h264",
        quality: str = "high",
        previous: PreviousFilm | None = None,
        sheet: ContactSheet | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Opens the file. size: (height, width) in latent cells. should_stop: asked before every latent frame, in the
        thread that decodes. sheet and on_progress are called in the thread of `run`.

        previous: the previous file of this film; its blocks are copied where they are the same, unless a sheet needs
        their frames. Raises ValueError for a path that does not fit the codec, and OSError that names the path where
        it cannot be written.
        """
        self.plan, self.sheet, self.video_frames = plan, sheet, 0
        self.mode: Mode = mode
        height, width = (SPACE_FACTOR * side for side in size)
        device = vae.conv2.weight.device
        self._stream = DecodeStream(vae, cuda_stream=decoder_cuda_stream(device) if mode == "async" else None)
        self._on_progress = on_progress
        self._should_stop = should_stop or (lambda: False)
        self._reach = ceil(vae.config.decoder_reach / plan.block_frames)
        fps = Fraction(plan.fps)
        writer = partial(open_film, path, width=width, height=height, fps=fps, codec=codec, quality=quality)
        if previous is None:
            self._file = NewFile(writer())
        else:
            self._file = ReusingFile(previous, writer, self._reach, copy=sheet is None)
        self._began = perf_counter()

    @property
    def copied(self) -> int:
        """How many blocks were copied from the previous file."""
        return self._file.copied if isinstance(self._file, ReusingFile) else 0

    @property
    def complete(self) -> bool:
        """Whether the whole plan is in the file."""
        return self.video_frames == self.plan.video_frames

    def run(self, blocks: Iterable[Block]) -> bool:
        """Decodes and writes the blocks, and closes the file; returns `complete`.

        Raises StageError, of "sampling", "decoding" or "writing", after the file was closed. Its cause is what `blocks`
        (NaN), the VAE (OutOfMemoryError) or the writer (a full disk) raised.
        """
        with self._closed_at_last(), Pipeline() as line:
            try:
                shown = 0
                for written in line.stage("writing", self._counted(self._written(line, blocks)), QUEUE_DEPTH):
                    self._show(written, shown)
                    shown += written.video_frames
            except BaseException:
                # An exception of this thread, as Ctrl-C: the frames decoded by now are still written.
                line.finish()
                raise
        return self.complete

    def _written(self, line: Pipeline, blocks: Iterable[Block]) -> Iterator[Written]:
        decoded = decode(
            sample(line, blocks, self.mode),
            self._stream,
            self._should_stop,
            is_written=self._file.is_written,
            reach=self._reach,
        )
        return write(line.stage("decoding", decoded, QUEUE_DEPTH), self._file)

    def _counted(self, written: Iterable[Written]) -> Iterator[Written]:
        for item in written:
            self.video_frames += item.video_frames
            yield item

    def _show(self, written: Written, start: int) -> None:
        """Reports frames that the file now has; `start` is the number of the first one."""
        if self.sheet is not None and written.frames is not None:
            self.sheet.add(start, written.frames)
        if self._on_progress is not None:
            blocks, shots, total = len(self.plan.blocks), self.plan.shots, self.plan.video_frames
            seconds = perf_counter() - self._began
            self._on_progress(Progress(written.block, blocks, shots, start + written.video_frames, total, seconds))

    @contextmanager
    def _closed_at_last(self) -> Generator[None, None, None]:
        try:
            yield
        finally:
            with in_stage("writing"):
                self._file.close(self.video_frames)
