"""Drawing a STREAM inside the host: models loaded, progress and previews shown, interrupts obeyed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from threading import Event
from types import TracebackType
from typing import TypeVar

import comfy.model_management
import comfy.model_patcher

from ..longlive_core.oom import is_out_of_memory
from ..longlive_core.pipeline.decode import DecodedFrame, decode, decoder_cuda_stream
from ..longlive_core.pipeline.stages import Mode, Pipeline, Stage, StageError, staged
from ..longlive_core.render.write_film import all_first
from ..longlive_core.sampling.generation import Step
from ..longlive_core.types import Block
from ..longlive_core.vae import ChunkDecoder, DecodeStream
from .preview import Board, LatentColours, Preview
from .routes import live_scripts
from .types import Stream

# How often the host is asked for an interrupt and the preview moves on while nothing else happens, in seconds.
TICK = 0.04


T = TypeVar("T")


class StreamRun:
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
        # Asked once: a film that is kept on disk looks at every block there to say what is left to be made.
        unfinished = stream.unfinished
        self._sampling = max((one.bytes for one in unfinished), default=0)
        self._scripts = {one.node: one.live for one in unfinished if one.live is not None}
        for one in unfinished:
            if not any(one.model is model for model in self._models):
                self._models.append(one.model)
        self._line = Pipeline()
        self._leaving = Event()
        self._news: SimpleQueue[Step | Block] = SimpleQueue()
        self._exit = ExitStack()

    def __enter__(self) -> StreamRun:
        with ExitStack() as entered:
            entered.enter_context(self._loaded())
            entered.enter_context(live_scripts().making(self._scripts))
            entered.enter_context(self._board)
            entered.enter_context(self._line)
            entered.callback(self._leaving.set)
            self._exit = entered.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._exit.close()
        if any(one is not None and is_out_of_memory(one) for one in (error, getattr(error, "__cause__", None))):
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

    def decoded(self, coder: ChunkDecoder) -> Iterator[DecodedFrame]:
        """The blocks' latent frames, for one stage to take; models in `beside` are the coder's.

        Beside the sampler, in a CUDA stream of its own, where all weights stay where they are; else in turn with it. A
        live script moves them, when its text is encoded: the work for both streams is then given in turn.
        """
        models = [*self._models, *self._beside]
        still = self._mode == "async" and not any(one.is_dynamic() or one.model.model_lowvram for one in models)
        cuda_stream = decoder_cuda_stream(self._beside[0].load_device) if still else None
        device_lock = self._stream.device_lock
        stream = DecodeStream(coder, cuda_stream=cuda_stream, free=device_lock.free_vram)
        return decode(self.blocks(), stream, self._leaving.is_set, None if still and not self._scripts else device_lock)

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
        both = self._mode == "async"
        needed = self._memory + self._sampling if both else self._sampling if models is self._models else self._memory
        if models:
            self._stream.device_lock.load(models, needed)

    @contextmanager
    def _loaded(self) -> Iterator[None]:
        self._load([*self._models, *self._beside] if self._mode == "async" else self._models)
        for model in self._models:
            model.pre_run()
        try:
            yield
        finally:
            self._stream.device_lock.forget()
            for model in self._models:
                model.cleanup()
            comfy.model_management.soft_empty_cache()
