"""Blocks in, a film file out, while the blocks are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import perf_counter

from torch import Tensor

from .contact_sheet import ContactSheet
from .script import BlockPlan
from .types import SPACE_FACTOR, Block, BlockSpec
from .vae import DecodeStream, WanVAE
from .video import VideoWriter


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
    """

    def __init__(
        self,
        plan: BlockPlan,
        vae: WanVAE,
        path: Path | str,
        *,
        size: tuple[int, int],
        sheet: ContactSheet | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Opens the file. size: (height, width) in latent cells. `should_stop` is asked before every latent frame.

        Raises OSError that names the path where it cannot be written.
        """
        self.plan, self.sheet, self.video_frames = plan, sheet, 0
        height, width = (SPACE_FACTOR * side for side in size)
        self._stream = DecodeStream(vae)
        self._on_progress = on_progress
        self._should_stop = should_stop or (lambda: False)
        self._writer = VideoWriter(path, width=width, height=height, fps=Fraction(plan.fps))
        self._began = perf_counter()

    @property
    def complete(self) -> bool:
        """Whether the whole plan is in the file."""
        return self.video_frames == self.plan.video_frames

    def run(self, blocks: Iterable[Block]) -> bool:
        """Decodes and writes the blocks, and closes the file; returns `complete`.

        What `blocks` raises (NaN, a full disk) passes through after the file was closed.
        """
        with self._writer:
            for block in blocks:
                self._writer.start_block()
                for latent in block.latents.split(1, dim=2):
                    if self._should_stop():
                        return self.complete
                    self._stream.feed(latent)
                    for frames in self._stream.flush():
                        self._write(block.spec, frames)
        return self.complete

    def _write(self, block: BlockSpec, frames: Tensor) -> None:
        self._writer.write(frames)
        if self.sheet is not None:
            self.sheet.add(self.video_frames, frames)
        self.video_frames += len(frames)
        if self._on_progress is not None:
            blocks, shots, total = len(self.plan.blocks), self.plan.shots, self.plan.video_frames
            seconds = perf_counter() - self._began
            self._on_progress(Progress(block, blocks, shots, self.video_frames, total, seconds))
