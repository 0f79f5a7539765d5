"""Writes a film into a file while its blocks are sampled."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from time import perf_counter

from ..model.cuda_graph import cuda_capture
from ..pipeline.decode import QUEUE_DEPTH, DecodedFrame, decode, decoder_cuda_stream
from ..pipeline.stages import Mode, Pipeline, in_stage, sample
from ..pipeline.write import NewFile, Written, write
from ..script import BlockPlan
from ..take.lock import TakenOverError
from ..types import SPACE_FACTOR, Block, BlockSpec
from ..vae import DecodeStream, WanVAE
from ..vae.graphed_decoder import GraphedDecoder
from ..video import Audio, open_film
from ..video.contact_sheet import ContactSheet
from .reuse import EarlierFiles, ReusingFile


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a film: `block` is being written, `video_frames` of `total` are in the file.

    `blocks` and `shots` are counts of the whole film; `seconds` is the time since the render began.
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
        """The time left in seconds at the rate so far; infinite before the first frame."""
        if self.video_frames == 0:
            return float("inf")
        return (self.total - self.video_frames) * self.seconds / self.video_frames


class Render:
    """Writes one film into a file.

        render = Render(plan, vae, path, size=(8, 8))
        render.run(generate(model, plan, ...))

    A render may complete, be stopped, get NaN from the model or find the disk full. In all cases every decoded frame is
    in the file, the file is closed and plays, and `video_frames` is the number of its frames.

    Frames are encoded and written in a thread; in mode "async" sampling and decoding also have a thread each. The film
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
        audio: Audio | None = None,
        previous: EarlierFiles | None = None,
        sheet: ContactSheet | None = None,
        cuda_graphs: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Opens the file. size: (height, width) in latent cells. should_stop: called before every latent frame, in the
        decoding thread. sheet and on_progress are called in the thread of `run`. check: see `TakeStore`; it raises
        TakenOverError before the file is written, which then stays as it is.

        audio: the sound of the film. previous: the earlier files of this film, whose equal blocks are copied unless a
        sheet needs their frames. cuda_graphs: decode steady latent frames as CUDA graphs on a device that has them.
        Raises ValueError if the path does not fit the codec, and OSError that names the path
        if it cannot be written.
        """
        self.plan, self.sheet, self.video_frames = plan, sheet, 0
        self._path = Path(path)
        self.mode: Mode = mode
        height, width = (SPACE_FACTOR * side for side in size)
        device = vae.conv2.weight.device
        capture = cuda_capture(device) if cuda_graphs else None
        decoder = vae if capture is None else GraphedDecoder(vae, capture)
        self._stream = DecodeStream(decoder, cuda_stream=decoder_cuda_stream(device) if mode == "async" else None)
        self._on_progress = on_progress
        self._should_stop, self._check = should_stop or (lambda: False), check or (lambda: None)
        self._reach = ceil(vae.config.decoder_reach / plan.block_frames)
        fps = Fraction(plan.fps)
        writer = partial(
            open_film, path, width=width, height=height, fps=fps, codec=codec, quality=quality, audio=audio
        )
        if previous is None:
            self._file = NewFile(writer())
        else:
            self._file = ReusingFile(previous, writer, self._reach, copy=sheet is None)
        self._began = perf_counter()

    @property
    def copied(self) -> int:
        """The number of blocks that were copied from the previous file."""
        return self._file.copied if isinstance(self._file, ReusingFile) else 0

    @property
    def complete(self) -> bool:
        """Whether the whole plan is in the file."""
        return self.video_frames == self.plan.video_frames

    def run(self, blocks: Iterable[Block]) -> bool:
        """Decodes and writes the blocks, and closes the file; returns `complete`.

        Raises StageError of "sampling", "decoding" or "writing" after the file is closed. Its cause is the error of
        `blocks` (such as NotFiniteError), of the VAE (OutOfMemoryError) or of the writer (a full disk).
        """
        with self._closing_file(), Pipeline() as pipeline:
            try:
                shown = 0
                for written in pipeline.stage("writing", self._counted(self._written(pipeline, blocks)), QUEUE_DEPTH):
                    self._show(written, shown)
                    shown += written.video_frames
            except BaseException:
                # An exception in this thread, such as Ctrl-C: the frames that are decoded are still written.
                pipeline.finish()
                raise
        return self.complete

    def discard(self) -> None:
        """Removes the file of a render that does not run; the film's previous file comes back. Raises StageError."""
        with in_stage("writing"):
            self._file.discard(self._path)

    def _written(self, pipeline: Pipeline, blocks: Iterable[Block]) -> Iterator[Written]:
        decoded = decode(
            sample(pipeline, blocks, self.mode),
            self._stream,
            self._should_stop,
            is_written=self._file.is_written,
            reach=self._reach,
        )
        return write(self._checked(pipeline.stage("decoding", decoded, QUEUE_DEPTH)), self._file)

    def _checked(self, frames: Iterable[DecodedFrame]) -> Iterator[DecodedFrame]:
        for frame in frames:
            self._check()
            yield frame

    def _counted(self, written: Iterable[Written]) -> Iterator[Written]:
        for item in written:
            self.video_frames += item.video_frames
            yield item

    def _show(self, written: Written, start: int) -> None:
        """Reports frames that the file now has; `start` is the index of the first one."""
        if self.sheet is not None and written.frames is not None:
            self.sheet.add(start, written.frames)
        if self._on_progress is not None:
            blocks, shots, total = len(self.plan.blocks), self.plan.shots, self.plan.video_frames
            seconds = perf_counter() - self._began
            self._on_progress(Progress(written.block, blocks, shots, start + written.video_frames, total, seconds))

    @contextmanager
    def _closing_file(self) -> Generator[None, None, None]:
        try:
            yield
        finally:
            with in_stage("writing"):
                try:
                    self._check()
                except TakenOverError:
                    self._file.abandon()
                    raise
                self._file.close(self.video_frames)
