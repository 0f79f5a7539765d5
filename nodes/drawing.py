"""Drawing a STREAM inside the host: models loaded, progress and previews shown, interrupts obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from threading import Event
from time import perf_counter
from types import TracebackType
from typing import TypeVar

import comfy.model_management
import comfy.model_patcher
import torch
from comfy.latent_formats import LatentFormat
from comfy_execution.progress import get_progress_state
from PIL import Image
from server import PromptServer
from torch import Tensor

from ..longlive_core.generation import Step
from ..longlive_core.live import LiveScript
from ..longlive_core.pipeline import Mode, Pipeline, Stage, StageError, staged
from ..longlive_core.progress import clock
from ..longlive_core.render import Piece, all_first, decode, decode_lane
from ..longlive_core.room import OutOfRoomError, free_memory
from ..longlive_core.types import SPACE_FACTOR, TIME_FACTOR, Block, BlockSpec
from ..longlive_core.vae import ChunkDecoder, DecodeStream
from .live import studio
from .types import Stream

# How often the host is asked for an interrupt and the preview moves on while nothing else happens, in seconds.
TICK = 0.04
PREVIEW_PIXELS = 512

T = TypeVar("T")
Preview = Callable[[Block], Tensor]


class Drawing:
    """A film being drawn.

        with Drawing(stream, beside=[vae.patcher], memory=bytes) as drawing:
            pieces = drawing.stage("decoding", drawing.decoded(coder))
            for piece in drawing.shown(pieces):
                ...

    Stages run in threads of their own; `shown` passes on the last one's items, moves the previews and obeys interrupts
    meanwhile. Progress shows on the node whose block is being made.

    beside: models that the caller's stages run; memory: bytes that they need for them. mode: how these share the
    devices with the film's own: "async" has all loaded, "sequential" loads them in turn for every block, "off" samples
    the whole film before they are loaded.
    preview: frames `[T, h, w, 3]` uint8 of a block in place of the latents' colours; in async mode only, since its
    models are not there while others are.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        beside: Sequence[comfy.model_patcher.ModelPatcher] = (),
        memory: int = 0,
        mode: Mode = "async",
        preview: Preview | None = None,
    ) -> None:
        self._stream, self._beside, self._memory, self._mode = stream, list(beside), memory, mode
        colours = LatentColours(stream.latent_format)
        self._board = Board(stream, preview if preview is not None and mode == "async" else colours)
        self._models: list[comfy.model_patcher.ModelPatcher] = []
        for one in stream.unfinished:
            if not any(one.model is model for model in self._models):
                self._models.append(one.model)
        self._line = Pipeline()
        self._leaving = Event()
        self._news: SimpleQueue[Step | Block] = SimpleQueue()
        self._exit = ExitStack()

    def __enter__(self) -> Drawing:
        with ExitStack() as entered:
            entered.enter_context(self._loaded())
            entered.enter_context(studio().making(_scripts(self._stream)))
            entered.enter_context(self._board)
            entered.enter_context(self._line)
            entered.callback(self._leaving.set)
            self._exit = entered.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._exit.close()
        if error is not None and isinstance(error.__cause__, OutOfRoomError):
            # As the host does for an error that it knows: the next run begins with all memory free.
            comfy.model_management.unload_all_models()

    def __iter__(self) -> Iterator[Block]:
        """The blocks in order, as `shown`, for work on them that is short."""
        return self.shown(self.stage("sampling", self._drawn()))

    def blocks(self) -> Iterator[Block]:
        """The blocks in order, for one stage to take."""
        if self._mode == "async":
            return self.stage("sampling", self._drawn())
        drawn = self._drawn() if self._mode == "sequential" else all_first(self._drawn())
        return self._swapped(staged("sampling", drawn))

    def stage(self, name: str, items: Iterable[T], depth: int = 1) -> Stage[T]:
        """The items, made in a thread."""
        return self._line.stage(name, items, depth)

    def shown(self, stage: Stage[T]) -> Iterator[T]:
        """The items of the last stage. Raises as `tick` does, and what sampling raises behind the sampler's name.

        However it ends, what earlier stages have finished is worked off first.
        """
        try:
            while not stage.done:
                self.tick()
                item = stage.take(TICK)
                if item is not None:
                    yield item
            self.tick()
        except StageError as error:
            if error.stage != "sampling":
                raise
            at = self._stream.maker(self._stream.film.kept)
            raise RuntimeError(f"{at.title} (node {at.node}): {error.__cause__}") from error.__cause__
        except BaseException:
            self._leaving.set()
            self._line.finish()
            raise

    def decoded(self, coder: ChunkDecoder) -> Iterator[Piece]:
        """The blocks' latent frames, for one stage to take; models in `beside` are the coder's.

        Beside the sampler, in a CUDA stream of its own, where all weights stay where they are; else in turn with it.
        """
        models = [*self._models, *self._beside]
        still = self._mode == "async" and not any(one.is_dynamic() or one.model.model_lowvram for one in models)
        lane = decode_lane(self._beside[0].load_device) if still else None
        stream = DecodeStream(coder, lane=lane, free=_free)
        return decode(self.blocks(), stream, self._leaving.is_set, None if still else self._stream.turn)

    def tick(self) -> None:
        """Moves what the user sees on. Raises the host's interrupt where the user asked for one."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        while not self._news.empty():
            news = self._news.get()
            if isinstance(news, Step):
                self._board.step(news)
            else:
                self._board.block(news)
        self._board.tick()

    def _drawn(self) -> Iterator[Block]:
        for block in self._stream.film.draw(self._news.put, self._leaving.is_set):
            self._news.put(block)
            yield block

    def _swapped(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """The film's models are on their devices while a block is made, those beside it while one is worked on."""
        while True:
            if self._mode == "sequential":
                self._load(self._models)
            block = next(blocks, None)
            if block is None:
                return
            self._load(self._beside)
            yield block

    def _load(self, models: list[comfy.model_patcher.ModelPatcher]) -> None:
        """Onto their devices, the film's only where there is something to sample, with the memory that they need."""
        sampling = max((one.bytes for one in self._stream.unfinished), default=0)
        both = self._mode == "async"
        needed = self._memory + sampling if both else sampling if models is self._models else self._memory
        if models:
            comfy.model_management.load_models_gpu(models, memory_required=needed)

    @contextmanager
    def _loaded(self) -> Iterator[None]:
        self._load([*self._models, *self._beside] if self._mode == "async" else self._models)
        for model in self._models:
            model.pre_run()
        try:
            yield
        finally:
            for model in self._models:
                model.cleanup()
            comfy.model_management.soft_empty_cache()


def _scripts(stream: Stream) -> dict[str, LiveScript]:
    """Of the shots that are still to be made, by the id of their node."""
    return {one.node: one.live for one in stream.unfinished if one.live is not None}


def _free() -> None:
    """Before work that ran out of memory is done once more."""
    free_memory()
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
    """What the user sees on the node of each shot: steps, a line of text, and its newest block played in a loop."""

    def __init__(self, stream: Stream, preview: Preview) -> None:
        self._stream, self._preview = stream, preview
        self._blocks = stream.film.plan.blocks
        self._first = stream.film.kept
        self._made = float(self._first)
        self._began = perf_counter()
        self._shown: set[str] = set()
        self._pictured: set[str] = set()
        self._frames: list[Image.Image] = []
        self._playing = stream
        self._moved = 0.0
        self._next = 0

    def __enter__(self) -> Board:
        at = self._stream.maker(self._first)
        self._progress(at, None)
        if self._first:
            self._say(at, f"{self._first} of {len(self._blocks)} blocks are kept from before")
        return self

    def __exit__(self, *_: object) -> None:
        # Those nodes' own executions ended long ago: nobody else would end what was shown on them since.
        for node in self._shown:
            get_progress_state().finish_progress(node)

    def step(self, step: Step) -> None:
        """A denoising step is done; the first block of a node shows as it forms."""
        at = self._stream.maker(step.block.index)
        if not step.storyboard:
            self._made = step.block.index + step.index / step.steps
        image = None
        if at.node not in self._pictured:
            colours = LatentColours(self._stream.latent_format).colours(step.x0[:, :, -1:])
            image = self._picture(colours[0])
        self._progress(at, image)
        shots = self._stream.film.plan.shots
        self._say(at, f"storyboard · shot {step.block.shot + 1}/{shots}" if step.storyboard else self.line(step.block))

    def block(self, block: Block) -> None:
        """A block is finished, now or before."""
        at = self._playing = self._stream.maker(block.index)
        self._made = max(self._made, float(block.index + 1))
        self._frames, self._next = [self._picture(frame) for frame in self._preview(block)], 0
        self._pictured.add(at.node)
        self._progress(at, None)
        last = block.index + 1 == len(at.film.plan.blocks)
        if last and (at is self._stream or block.index >= self._first):
            self._say(at, self.line(block.spec))

    def tick(self) -> None:
        """Moves the preview on, at the film's own pace."""
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
        return f"{text} · {pace * block.frames * TIME_FACTOR:.0f} fps · {clock(left)} left"

    def _progress(self, at: Stream, image: Image.Image | None) -> None:
        """Steps of the node's own blocks."""
        blocks = len(at.film.plan.blocks) - at.first
        done = round(min(max(self._made - at.first, 0), blocks) * at.steps)
        self._shown.add(at.node)
        preview = None if image is None else ("JPEG", image, PREVIEW_PIXELS)
        get_progress_state().update_progress(at.node, done, blocks * at.steps, preview)

    def _say(self, at: Stream, text: str) -> None:
        PromptServer.instance.send_progress_text(text, at.node)

    def _picture(self, frame: Tensor) -> Image.Image:
        """A frame `[h, w, 3]` in the film's proportions, at most PREVIEW_PIXELS wide or high."""
        height, width = self._stream.shape.height * SPACE_FACTOR, self._stream.shape.width * SPACE_FACTOR
        scale = min(1.0, PREVIEW_PIXELS / max(height, width))
        return Image.fromarray(frame.numpy()).resize((round(width * scale), round(height * scale)))
