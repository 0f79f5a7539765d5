"""What a running film shows on the nodes that make it: progress, a line of status, and the newest frames."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter

import torch
from comfy.latent_formats import LatentFormat
from comfy_execution.progress import get_progress_state
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..longlive_core.cli.progress_bar import format_duration
from ..longlive_core.oom import is_out_of_memory
from ..longlive_core.sampling.generation import Step
from ..longlive_core.types import SPACE_FACTOR, TIME_FACTOR, Block, BlockSpec
from .types import Stream

log = logging.getLogger(__name__)

PREVIEW_PIXELS = 512

Preview = Callable[[Block], Tensor]


class LatentColours:
    """Preview frames of a block by the host's linear map from latents to colours, one for every latent frame."""

    def __init__(self, latent_format: LatentFormat) -> None:
        self._factors = torch.tensor(latent_format.latent_rgb_factors)
        self._bias = torch.tensor(latent_format.latent_rgb_factors_bias)

    def __call__(self, block: Block) -> Tensor:
        return self.colours(block.latents)

    def colours(self, latents: Tensor) -> Tensor:
        """`[1, C, F, h, w]` normalised → `[F, h, w, 3]` uint8."""
        x = latents[0].float().cpu().permute(1, 2, 3, 0) @ self._factors + self._bias
        return x.add(1).mul(127.5).clamp(0, 255).to(torch.uint8)


class StreamPreview:
    """What each shot's node shows: denoising steps, a line of status, and its newest block played in a loop."""

    def __init__(self, stream: Stream, preview: Preview) -> None:
        self._stream, self._preview = stream, preview
        self._blocks = stream.film.plan.blocks
        self._first = stream.film.available
        self._made = float(self._first)
        self._began = perf_counter()
        self._shown: set[str] = set()
        self._pictured: set[str] = set()
        self._frames: list[Image.Image] = []
        self._playing = stream
        self._moved = 0.0
        self._next = 0

    def __enter__(self) -> StreamPreview:
        at = self._stream.owner(self._first)
        self._progress(at, None)
        if self._first:
            self._status(at, f"{self._first} of {len(self._blocks)} blocks are finished already")
        return self

    def __exit__(self, *_: object) -> None:
        # The host finished these nodes long ago and does not finish the progress that they have shown since.
        for node in self._shown:
            get_progress_state().finish_progress(node)

    def step(self, step: Step) -> None:
        """Shows a denoising step; the first block of a node shows while it is denoised."""
        at = self._stream.owner(step.block.index)
        if not step.storyboard:
            self._made = step.block.index + step.index / step.steps
        image = None
        if at.node not in self._pictured:
            colours = LatentColours(self._stream.latent_format).colours(step.x0[:, :, -1:])
            image = self._picture(colours[0])
        self._progress(at, image)
        shots = self._stream.film.plan.shots
        self._status(
            at, f"storyboard · shot {step.block.shot + 1}/{shots}" if step.storyboard else self.line(step.block)
        )

    def block(self, block: Block) -> None:
        """Shows a finished block, sampled now or in an earlier run."""
        at = self._playing = self._stream.owner(block.index)
        self._made = max(self._made, float(block.index + 1))
        self._frames, self._next = [self._picture(frame) for frame in self._previewed(block)], 0
        self._pictured.add(at.node)
        self._progress(at, None)
        last = block.index + 1 == len(at.film.plan.blocks)
        if last and (at is self._stream or block.index >= self._first):
            self._status(at, self.line(block.spec))

    def tick(self) -> None:
        """Shows the next preview frame at the film's own pace."""
        per_second = self._stream.film.plan.fps / TIME_FACTOR * max(1, len(self._frames) // self._stream.shape.frames)
        if not self._frames or perf_counter() - self._moved < 1 / per_second:
            return
        self._moved = perf_counter()
        self._progress(self._playing, self._frames[self._next % len(self._frames)])
        self._next += 1

    def line(self, block: BlockSpec) -> str:
        """`shot 2/5 · block 7/24 · 11 fps · 0:42 left`"""
        plan, seconds = self._stream.film.plan, perf_counter() - self._began
        made = self._made - self._first
        text = f"shot {block.shot + 1}/{plan.shots} · block {block.index + 1}/{len(self._blocks)}"
        if made <= 0 or seconds <= 0:
            return text
        pace = made / seconds
        left = (len(self._blocks) - self._made) / pace
        return f"{text} · {pace * block.frames * TIME_FACTOR:.0f} fps · {format_duration(left)} left"

    def _previewed(self, block: Block) -> Tensor:
        """The preview of a block. A preview VAE that runs out of memory is replaced by the latents' colours."""
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

    def _progress(self, at: Stream, image: Image.Image | None) -> None:
        """Reports the finished steps of the node's own blocks."""
        blocks = len(at.film.plan.blocks) - at.first
        done = round(min(max(self._made - at.first, 0), blocks) * at.steps)
        self._shown.add(at.node)
        preview = None if image is None else ("JPEG", image, PREVIEW_PIXELS)
        get_progress_state().update_progress(at.node, done, blocks * at.steps, preview)

    def _status(self, at: Stream, text: str) -> None:
        PromptServer.instance.send_progress_text(text, at.node)

    def _picture(self, frame: Tensor) -> Image.Image:
        """A frame `[h, w, 3]` in the film's proportions, at most PREVIEW_PIXELS wide or high."""
        height, width = self._stream.shape.height * SPACE_FACTOR, self._stream.shape.width * SPACE_FACTOR
        scale = min(1.0, PREVIEW_PIXELS / max(height, width))
        return Image.fromarray(frame.numpy()).resize((round(width * scale), round(height * scale)))
