"""Runs a STREAM inside the host: loads models, shows progress and previews, obeys interrupts."""

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
from ..longlive_core.pipeline.stages import Mode, Pipeline, Stage, StageError, sample
from ..longlive_core.sampling.generation import Step
from ..longlive_core.types import Block
from ..longlive_core.vae import ChunkDecoder, DecodeStream
from .preview import LatentColours, Preview, StreamPreview
from .routes import live_scripts
from .types import Stream

# How often the host is asked for an interrupt and the preview moves on while nothing else happens, in seconds.
TICK = 0.04


T = TypeVar("T")


class StreamRun:
    """One run of a stream's film.

        with StreamRun(stream, beside=[vae.patcher], memory=bytes) as run:
            decoded = run.stage("decoding", run.decoded(coder))
            for frame in run.shown(decoded):
                ...

    Stages run in threads; `shown` passes on the items of the last stage and meanwhile moves the previews and obeys
    interrupts. Progress shows on the node whose block is being made.

    beside: models that the caller's stages run. memory: bytes of VRAM that these stages need. mode: how these models
    share the device with the film's: "async" loads all of them, "sequential" loads them in turn for every block, "off"
    samples the whole film before it loads them. preview: gives frames `[T, h, w, 3]` uint8 of a block, in place of the
    latents' colours; in mode "async" only, because its model is not loaded while others are.
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
        self._preview = StreamPreview(stream, preview if preview is not None and mode == "async" else colours)
        self._models: list[comfy.model_patcher.ModelPatcher] = []
        # Asked once: a film in a take reads every block on disk to find out what it must sample.
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
            entered.enter_context(live_scripts().registered(self._scripts))
            entered.enter_context(self._preview)
            entered.enter_context(self._line)
            entered.callback(self._leaving.set)
            self._exit = entered.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._exit.close()
        if any(one is not None and is_out_of_memory(one) for one in (error, getattr(error, "__cause__", None))):
            # As the host does where it catches the error itself: the next run starts with all VRAM free.
            comfy.model_management.unload_all_models()

    def __iter__(self) -> Iterator[Block]:
        """The blocks in order, as `shown`, for callers without stages of their own."""
        return self.shown(self.stage("sampling", self._run_film()))

    def blocks(self) -> Iterator[Block]:
        """The blocks in order, for one stage."""
        blocks = sample(self._line, self._run_film(), self._mode)
        return blocks if self._mode == "async" else self._swapped(blocks)

    def stage(self, name: str, items: Iterable[T], depth: int = 1) -> Stage[T]:
        """A stage that makes the items in a thread."""
        return self._line.stage(name, items, depth)

    def shown(self, stage: Stage[T]) -> Iterator[T]:
        """The items of the last stage. Raises as `tick`; an error of sampling names the node that samples.

        However it ends, the last stage first finishes what earlier stages have made.
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
            at = self._stream.owner(self._stream.film.available)
            raise RuntimeError(f"{at.title} (node {at.node}): {error.__cause__}") from error.__cause__
        except BaseException:
            self._leaving.set()
            self._line.finish()
            raise

    def decoded(self, chunk_decoder: ChunkDecoder) -> Iterator[DecodedFrame]:
        """The decoded frames of the blocks, for one stage. The models in `beside` are the coder's.

        Where no weight moves, decoding has a CUDA stream beside the sampler's; elsewhere it takes turns with sampling
        by the device lock. A live script moves weights when its text is encoded, so that it needs the lock too.
        """
        models = [*self._models, *self._beside]
        still = self._mode == "async" and not any(one.is_dynamic() or one.model.model_lowvram for one in models)
        cuda_stream = decoder_cuda_stream(self._beside[0].load_device) if still else None
        device_lock = self._stream.device_lock
        stream = DecodeStream(chunk_decoder, cuda_stream=cuda_stream, free=device_lock.free_vram)
        return decode(self.blocks(), stream, self._leaving.is_set, None if still and not self._scripts else device_lock)

    def tick(self) -> None:
        """Updates progress and previews. Raises the host's interrupt after the user cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        while not self._news.empty():
            news = self._news.get()
            if isinstance(news, Step):
                self._preview.step(news)
            else:
                self._preview.block(news)
        self._preview.tick()

    def _run_film(self) -> Iterator[Block]:
        for block in self._stream.film.run(self._news.put, self._leaving.is_set):
            self._news.put(block)
            yield block

    def _swapped(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Loads the film's models to make a block, and those beside it while the block is decoded."""
        while True:
            if self._mode == "sequential":
                self._load(self._models)
            block = next(blocks, None)
            if block is None:
                return
            self._load(self._beside)
            yield block

    def _load(self, models: list[comfy.model_patcher.ModelPatcher]) -> None:
        """Loads models with the VRAM that they need; a film that replays only has none."""
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
            self._stream.device_lock.end_run()
            for model in self._models:
                model.cleanup()
            comfy.model_management.soft_empty_cache()
