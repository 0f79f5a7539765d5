"""Drawing a STREAM inside the host: models loaded, progress and previews shown, interrupts obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from types import TracebackType

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.latent_formats import LatentFormat
from comfy_execution.progress import get_progress_state
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..longlive_core.ahead import Ahead
from ..longlive_core.generation import Step
from ..longlive_core.progress import clock
from ..longlive_core.types import SPACE_FACTOR, TIME_FACTOR, Block, BlockSpec
from .types import Stream

# How often the host is asked for an interrupt and the preview moves on while nothing else happens, in seconds.
TICK = 0.04
PREVIEW_PIXELS = 512

Preview = Callable[[Block], Tensor]


class Drawing:
    """A film being drawn.

        with Drawing(stream, beside=[vae.patcher], memory=bytes) as drawing:
            for block in drawing:
                ...                 # long work on a block calls drawing.tick() now and then

    On a GPU later blocks are sampled in a thread meanwhile. Progress shows on the sampler's node.
    beside: models that the caller runs; memory: bytes that it needs for them; both are loaded with the stream's own.
    preview: frames `[T, h, w, 3]` uint8 of a block in place of the latents' colours.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        beside: Sequence[comfy.model_patcher.ModelPatcher] = (),
        memory: int = 0,
        preview: Preview | None = None,
    ) -> None:
        self._stream, self._beside, self._memory = stream, list(beside), memory
        self._board = Board(stream, preview or LatentColours(stream.latent_format))
        self._exit = ExitStack()
        self._ahead = Ahead(stream.film.draw) if stream.model.load_device.type != "cpu" else None

    def __enter__(self) -> Drawing:
        with ExitStack() as entered:
            entered.enter_context(_loaded(self._stream, self._beside, self._memory))
            entered.enter_context(self._board)
            if self._ahead is not None:
                entered.enter_context(self._ahead)
            self._exit = entered.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._exit.close()

    def __iter__(self) -> Iterator[Block]:
        """The blocks in order. Raises as `tick` does, and what sampling raises with the sampler's name before it."""
        blocks = self._in_turn() if self._ahead is None else self._from(self._ahead)
        while True:
            try:
                block = next(blocks, None)
            except (ValueError, RuntimeError) as error:
                if comfy.model_management.is_oom(error):
                    raise
                raise RuntimeError(f"LongLive Streaming Sampler (node {self._stream.sampler}): {error}") from error
            self.tick()
            if block is None:
                return
            self._board.block(block)
            yield block

    def _from(self, ahead: Ahead) -> Iterator[Block]:
        while not ahead.done:
            self.tick()
            event = ahead.take(TICK)
            if isinstance(event, Step):
                self._board.step(event)
            elif isinstance(event, Block):
                yield event

    def _in_turn(self) -> Iterator[Block]:
        """Without a thread: on a CPU, two would only take the cores from each other."""

        def on_step(step: Step) -> None:
            self._board.step(step)
            self.tick()

        return self._stream.film.draw(on_step, comfy.model_management.processing_interrupted)

    def tick(self) -> None:
        """Moves the preview on. Raises the host's interrupt where the user asked for one."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._board.tick()


@contextmanager
def _loaded(stream: Stream, beside: list[comfy.model_patcher.ModelPatcher], memory: int) -> Iterator[None]:
    """The models on their device, the film's loaded only where there is something to sample."""
    sampling = stream.models
    comfy.model_management.load_models_gpu(
        [*sampling, *beside], memory_required=memory + (stream.memory if sampling else 0)
    )
    for model in sampling:
        model.pre_run()
    try:
        yield
    finally:
        for model in sampling:
            model.cleanup()
        comfy.model_management.soft_empty_cache()


class LatentColours:
    """Frames of a block from its latents alone: the host's linear map to colours, of every latent frame."""

    def __init__(self, latent_format: LatentFormat) -> None:
        self._factors = torch.tensor(latent_format.latent_rgb_factors)
        self._bias = torch.tensor(latent_format.latent_rgb_factors_bias)

    def __call__(self, block: Block) -> Tensor:
        return self.colours(block.latents)

    def colours(self, latents: Tensor) -> Tensor:
        """`[1, C, F, h, w]` normalised → `[F, h, w, 3]` uint8."""
        x = latents[0].float().cpu().permute(1, 2, 3, 0) @ self._factors + self._bias
        return x.add(1).mul(127.5).clamp(0, 255).to(torch.uint8)


class Board:
    """What the user sees on the sampler's node: steps, a line of text, and the newest block played in a loop."""

    def __init__(self, stream: Stream, preview: Preview) -> None:
        self._stream, self._preview = stream, preview
        self._blocks = stream.film.plan.blocks
        self._total = len(self._blocks) * stream.steps
        self._done = stream.film.finished * stream.steps
        self._first = stream.film.finished
        self._began = perf_counter()
        self._frames: list[Image.Image] = []
        self._shown = 0.0
        self._next = 0

    def __enter__(self) -> Board:
        self._progress(None)
        if self._first:
            self._say(f"{self._first} of {len(self._blocks)} blocks are kept from before")
        return self

    def __exit__(self, *_: object) -> None:
        # The sampler's own execution ended long ago: nobody else would end what was shown on it since.
        get_progress_state().finish_progress(self._stream.sampler)

    def step(self, step: Step) -> None:
        """A denoising step is done; the first block shows as it forms."""
        self._done = step.block.index * self._stream.steps + step.index
        image = None
        if not self._frames:
            colours = LatentColours(self._stream.latent_format).colours(step.x0[:, :, -1:])
            image = self._picture(colours[0])
        self._progress(image)
        self._say(self.line(step.block))

    def block(self, block: Block) -> None:
        """A block is finished."""
        self._done = max(self._done, (block.index + 1) * self._stream.steps)
        self._frames, self._next = [self._picture(frame) for frame in self._preview(block)], 0
        self._progress(None)
        if block.index + 1 == len(self._blocks):
            self._say(self.line(block.spec))

    def tick(self) -> None:
        """Moves the preview on, at the film's own pace."""
        per_second = self._stream.film.plan.fps / TIME_FACTOR * max(1, len(self._frames) // self._stream.shape.frames)
        if not self._frames or perf_counter() - self._shown < 1 / per_second:
            return
        self._shown = perf_counter()
        self._progress(self._frames[self._next % len(self._frames)])
        self._next += 1

    def line(self, block: BlockSpec) -> str:
        """`shot 2/5 · block 7/24 · 11 fps · 0:42 left`"""
        plan, seconds = self._stream.film.plan, perf_counter() - self._began
        made = block.index - self._first + (self._done - block.index * self._stream.steps) / self._stream.steps
        text = f"shot {block.shot + 1}/{plan.shots} · block {block.index + 1}/{len(self._blocks)}"
        if made <= 0 or seconds <= 0:
            return text
        pace = made / seconds
        left = (len(self._blocks) - self._first - made) / pace
        return f"{text} · {pace * block.frames * TIME_FACTOR:.0f} fps · {clock(left)} left"

    def _progress(self, image: Image.Image | None) -> None:
        preview = None if image is None else ("JPEG", image, PREVIEW_PIXELS)
        get_progress_state().update_progress(self._stream.sampler, self._done, self._total, preview)

    def _say(self, text: str) -> None:
        PromptServer.instance.send_progress_text(text, self._stream.sampler)

    def _picture(self, frame: Tensor) -> Image.Image:
        """A frame `[h, w, 3]` in the film's proportions, at most PREVIEW_PIXELS wide or high."""
        height, width = self._stream.shape.height * SPACE_FACTOR, self._stream.shape.width * SPACE_FACTOR
        scale = min(1.0, PREVIEW_PIXELS / max(height, width))
        return Image.fromarray(frame.numpy()).resize((round(width * scale), round(height * scale)))
