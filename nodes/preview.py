"""Shows a running film on the nodes that make it: progress, a status line and a preview of the newest block."""

from __future__ import annotations

import logging
from time import perf_counter

from comfy_execution.progress import get_progress_state
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..longlive_core.cli.progress_bar import format_duration
from ..longlive_core.film.film import Film
from ..longlive_core.film.pace import Pace
from ..longlive_core.oom import is_out_of_memory
from ..longlive_core.sampling.generation import Step
from ..longlive_core.types import SPACE_FACTOR, TIME_FACTOR, Block, BlockSpec
from ..longlive_core.units import plural
from .films import RunningFilm
from .latent_colours import LatentColours, Preview
from .types import Stream

log = logging.getLogger(__name__)

PREVIEW_PIXELS = 512
# A page shows previews one by one, and on a busy machine or a slow line those that wait delay its other events.
PREVIEW_FPS = 8


def send_text(text: str, node: str) -> None:
    """Shows a line on a node of the client whose prompt runs; without a client there is nobody to show it to."""
    server = PromptServer.instance
    if server.client_id is not None:
        server.send_progress_text(text, node, server.client_id)


class StreamPreview:
    """Shows denoising steps, a status line and the newest block, played in a loop, on the node of each shot."""

    def __init__(self, stream: Stream, preview: Preview) -> None:
        self._stream, self._preview = stream, preview
        self._blocks = stream.film.plan.blocks
        self._first = stream.film.available
        self._finished = float(self._first)
        self._pace, self._replayed = Pace(), _replayed(stream.film)
        self._shown: set[str] = set()
        self._has_preview: set[str] = set()
        self._frames: list[Image.Image] = []
        self._playing = stream
        self._shown_at = 0.0
        self._next_frame = 0
        self._per_second = float(stream.film.plan.fps)  # of all preview frames, those that are not shown among them
        self._decoded: BlockSpec | None = None
        self._decoded_frames = 0
        self.film: RunningFilm | None = None

    def __enter__(self) -> StreamPreview:
        stream = self._stream.owner(self._first)
        self._pace.begin()
        self._progress(stream, None)
        if self._first:
            total = len(self._blocks)
            self._status(
                stream, f"{self._first} of {plural(total, 'block')} {'is' if total == 1 else 'are'} finished already"
            )
        return self

    def __exit__(self, *_: object) -> None:
        # The host has finished these nodes already, so nobody else finishes the progress that they show since.
        for node in self._shown:
            get_progress_state().finish_progress(node)

    def step(self, step: Step) -> None:
        """Shows a denoising step, and a picture of it until the node has its first finished block."""
        stream = self._stream.owner(step.block.index)
        if not step.storyboard:
            self._finished = step.block.index + step.index / step.steps
            self._pace.step(step, max(0, _replayed(self._stream.film) - self._replayed))
        image = None
        if stream.node not in self._has_preview:
            colours = LatentColours(self._stream.latent_format).colours(step.x0[:, :, -1:])
            image = self._picture(colours[0])
        self._progress(stream, image)
        shots = self._stream.film.plan.shots
        line = f"storyboard · shot {step.block.shot + 1}/{shots}" if step.storyboard else self.line(step.block)
        self._status(stream, line)
        self._tell(step.block, line)

    def block(self, block: Block) -> None:
        """Shows a finished block, sampled now or in an earlier run."""
        stream = self._playing = self._stream.owner(block.index)
        if block.index < self._first or self._finished <= block.index:  # it was stored
            self._pace.begin()
        self._finished = max(self._finished, float(block.index + 1))
        if self._decoded is None:
            frames = self._preview_frames(block)
            self._per_second = stream.film.plan.fps * max(1, len(frames) // stream.spec.shape.frames) / TIME_FACTOR
            self._frames, self._next_frame = [self._picture(frame) for frame in frames[:: self._stride]], 0
        self._has_preview.add(stream.node)
        self._progress(stream, None)
        last = block.index + 1 == len(stream.film.plan.blocks)
        if last and (stream is self._stream or block.index >= self._first):
            self._status(stream, self.line(block.spec))
        self._tell(block.spec, self.line(block.spec))

    def decoded(self, block: BlockSpec, frames: Tensor) -> None:
        """Shows frames of a block from now on that were decoded for the film; no preview is computed any more."""
        if self._decoded != block:
            self._frames, self._next_frame, self._decoded, self._decoded_frames = [], 0, block, 0
            self._playing, self._per_second = self._stream.owner(block.index), self._stream.film.plan.fps
        stride = self._stride
        self._frames += [self._picture(frame) for frame in frames[-self._decoded_frames % stride :: stride]]
        self._decoded_frames += len(frames)

    def tick(self) -> None:
        """Shows the next preview frame when it is due, at the film's speed."""
        if not self._frames or perf_counter() - self._shown_at < self._stride / self._per_second:
            return
        self._shown_at = perf_counter()
        self._progress(self._playing, self._frames[self._next_frame % len(self._frames)])
        self._next_frame += 1

    def line(self, block: BlockSpec) -> str:
        """Formats the status, as in `shot 2/5 · block 7/24 · 11 fps · 0:42 left`."""
        text = f"shot {block.shot + 1}/{self._stream.film.plan.shots} · block {block.index + 1}/{len(self._blocks)}"
        left = self._left
        return text if left is None else f"{text} · {self._fps(block):.0f} fps · {format_duration(left)} left"

    @property
    def seconds_per_block(self) -> float | None:
        """How long sampling a block took in this run; None if nothing was sampled."""
        pace = self._pace.blocks_per_second
        return 1 / pace if pace else None

    @property
    def _stride(self) -> int:
        """One preview frame of so many is shown, so that a second has about PREVIEW_FPS."""
        return max(1, round(self._per_second / PREVIEW_FPS))

    @property
    def _left(self) -> float | None:
        """The seconds until the film is sampled; None while its pace is unknown."""
        pace = self._pace.blocks_per_second
        return None if pace == 0 else (len(self._blocks) - self._finished) / pace

    def _fps(self, block: BlockSpec) -> float:
        """How many video frames are sampled per second."""
        return self._pace.blocks_per_second * block.frames * TIME_FACTOR

    def _tell(self, block: BlockSpec, line: str) -> None:
        if self.film is not None:
            self.film.update(shot=block.shot + 1, pace=self._fps(block), left=self._left, line=line)

    def _preview_frames(self, block: Block) -> Tensor:
        """Makes the preview of a block. If the preview VAE runs out of memory, `LatentColours` replaces it."""
        try:
            return self._preview(block)
        except (RuntimeError, MemoryError) as error:
            if isinstance(self._preview, LatentColours) or not is_out_of_memory(error):
                raise
            log.warning(
                "LongLive: the preview VAE ran out of memory; the preview shows colours computed from the latents"
            )
        self._preview = LatentColours(self._stream.latent_format)
        return self._preview(block)

    def _progress(self, stream: Stream, image: Image.Image | None) -> None:
        """Reports the finished steps of the blocks that the node adds."""
        blocks = len(stream.film.plan.blocks) - stream.first
        done = round(min(max(self._finished - stream.first, 0), blocks) * stream.spec.settings.steps)
        self._shown.add(stream.node)
        preview = None if image is None else ("JPEG", image, None)
        get_progress_state().update_progress(stream.node, done, blocks * stream.spec.settings.steps, preview)

    def _status(self, stream: Stream, text: str) -> None:
        # A node shows its newest text only.
        send_text("\n".join([text, *stream.notes]), stream.node)

    def _picture(self, frame: Tensor) -> Image.Image:
        """Resizes a frame `[h, w, 3]` to the film's aspect ratio, at most PREVIEW_PIXELS wide and high."""
        height, width = self._stream.spec.shape.height * SPACE_FACTOR, self._stream.spec.shape.width * SPACE_FACTOR
        scale = min(1.0, PREVIEW_PIXELS / max(height, width))
        return Image.fromarray(frame.numpy()).resize((round(width * scale), round(height * scale)))


def _replayed(film: Film) -> int:
    """The clean passes that only rebuilt the KV cache, in the newest runs of a film and those that it continues."""
    return film.report.replayed + (0 if film.earlier is None else _replayed(film.earlier))
