"""Blocks in, a film file out, while the blocks are made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import perf_counter

from ..pipeline.decode import DEPTH, decode, decoder_cuda_stream, write
from ..pipeline.stages import Mode, Pipeline, in_stage, staged
from ..script import BlockPlan
from ..types import SPACE_FACTOR, Block, BlockSpec
from ..vae import DecodeStream, WanVAE
from ..video import open_film
from ..video.contact_sheet import ContactSheet
from .film_index import PreviousFilm
from .reuse import Recut, Written


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a film stands: `block` is the one being written, `video_frames` of `total` are in the file.

    `blocks` and `shots` count those of the whole film; `seconds` is the time since the render began.
    """

    block: BlockSpec
    blocks: int
    shots: int
    video_frames: int
    total: int
    seconds: float

    @property
    def frames_per_second(self) -> float:
        return self.video_frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """At the pace so far; infinite before the first frame."""
        if self.video_frames == 0:
            return float("inf")
        return (self.total - self.video_frames) * self.seconds / self.video_frames


class Render:
    """One film on its way into a file.

        render = Render(plan, vae, path, size=(8, 8))
        render.run(generate(model, plan, ...))

    However it ends — complete, stopped, NaN from the model, disk full — every frame that was decoded is in the file,
    the file is closed and plays, and `video_frames` says how much of it there is.

    Frames are encoded and written in a thread of their own; with mode "async" sampling and decoding have one each too.
    What comes out is the same to the bit in every mode.
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
        cutting: PreviousFilm | None = None,
        sheet: ContactSheet | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Opens the file. size: (height, width) in latent cells. `should_stop` is asked before every latent frame, in
        the thread that decodes; `sheet` and `on_progress` are called in the thread of `run`.

        cutting: of the film's take: blocks that its film held before are copied, not decoded, unless a sheet is wanted.

        Raises ValueError for a path of another codec's films, and OSError that names it where it cannot be written.
        """
        self.plan, self.mode, self.sheet, self.video_frames = plan, mode, sheet, 0
        height, width = (SPACE_FACTOR * side for side in size)
        device = vae.conv2.weight.device
        self._stream = DecodeStream(vae, cuda_stream=decoder_cuda_stream(device) if mode == "async" else None)
        self._on_progress = on_progress
        self._should_stop = should_stop or (lambda: False)
        copy = sheet is None
        self._recut = None if cutting is None else Recut(cutting, vae, plan.block_frames, copy=copy)
        try:
            self._writer = open_film(
                path, width=width, height=height, fps=Fraction(plan.fps), codec=codec, quality=quality
            )
        except BaseException:
            if self._recut is not None:
                self._recut.abandon()
            raise
        if self._recut is not None:
            self._recut.check(self._writer)
        self._began = perf_counter()

    @property
    def copied(self) -> int:
        """How many blocks were copied from the film as it was."""
        return 0 if self._recut is None else self._recut.copied

    @property
    def complete(self) -> bool:
        """Whether the whole plan is in the file."""
        return self.video_frames == self.plan.video_frames

    def run(self, blocks: Iterable[Block]) -> bool:
        """Decodes and writes the blocks, and closes the file; returns `complete`.

        What goes wrong is raised as StageError, of "sampling", "decoding" or "writing", after the file was closed; its
        cause is what `blocks` (NaN), the VAE (OutOfMemoryError) or the writer (a full disk) raised.
        """
        with self._closed_at_last(), Pipeline() as line:
            try:
                shown = 0
                for piece in line.stage("writing", self._counted(self._written(line, blocks)), DEPTH):
                    self._show(piece, shown)
                    shown += piece.video_frames
            except BaseException:
                # Of this thread, as Ctrl-C: what is decoded by now is still written.
                line.finish()
                raise
        return self.complete

    def _written(self, line: Pipeline, blocks: Iterable[Block]) -> Iterator[Written]:
        if self.mode == "async":
            # On the host they are finished, whatever stream of the device they were made in.
            sampled = line.stage("sampling", (Block(one.spec, one.latents.cpu()) for one in blocks))
        else:
            sampled = staged("sampling", blocks if self.mode != "off" else all_first(blocks))
        if self._recut is not None:
            pieces = line.stage("decoding", self._recut.decode(sampled, self._stream, self._should_stop), DEPTH)
            return self._recut.write(pieces, self._writer)
        decoded = line.stage("decoding", decode(sampled, self._stream, self._should_stop), DEPTH)
        return (Written(piece.block, len(frames), frames) for piece, frames in write(decoded, self._writer))

    def _counted(self, written: Iterable[Written]) -> Iterator[Written]:
        for piece in written:
            self.video_frames += piece.video_frames
            yield piece

    def _show(self, piece: Written, start: int) -> None:
        """Frames that are in the file now, the first of them number `start`."""
        if self.sheet is not None and piece.frames is not None:
            self.sheet.add(start, piece.frames)
        if self._on_progress is not None:
            blocks, shots, total = len(self.plan.blocks), self.plan.shots, self.plan.video_frames
            seconds = perf_counter() - self._began
            self._on_progress(Progress(piece.block, blocks, shots, start + piece.video_frames, total, seconds))

    @contextmanager
    def _closed_at_last(self) -> Generator[None, None, None]:
        try:
            yield
        finally:
            whole = False
            with in_stage("writing"):
                try:
                    self._writer.close()
                    whole = True
                finally:
                    if self._recut is not None:
                        self._recut.close(self.video_frames, whole=whole)


def all_first(blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks, on the host, all made before the first is handed on; what went wrong is raised behind them."""
    made: deque[Block] = deque()
    failed: Exception | None = None
    try:
        for block in blocks:
            made.append(Block(block.spec, block.latents.cpu()))
    except Exception as error:
        failed = error
    while made:
        yield made.popleft()
    try:
        if failed is not None:
            raise failed
    finally:
        # Its traceback holds this frame: a cycle would keep the model's memory.
        del failed
