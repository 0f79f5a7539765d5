"""Runs a STREAM inside the host: loads models, shows progress and previews, and handles interrupts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil
from queue import SimpleQueue
from threading import Event
from types import TracebackType
from typing import TypeVar

import comfy.model_management
import comfy.model_patcher
from torch import Tensor

from ..longlive_core.oom import is_out_of_memory
from ..longlive_core.pipeline.decode import DecodedFrame, decode, decoder_cuda_stream
from ..longlive_core.pipeline.stages import Mode, Pipeline, Stage, StageError, sample
from ..longlive_core.sampling.generation import Step
from ..longlive_core.types import Block, BlockSpec
from ..longlive_core.vae import ChunkDecoder, DecodeStream
from .films import RunningFilm
from .latent_colours import LatentColours, Preview
from .preview import StreamPreview
from .routes import films
from .routes.workers import workers
from .types import Stream

# The interval in seconds between checks for an interrupt and updates of the preview.
TICK = 0.04


T = TypeVar("T")


class StreamRun:
    """One run of a stream's film.

        with StreamRun(stream, beside=[decoder_patcher(vae)], memory=bytes) as run:
            decoded = run.stage("decoding", run.decoded(chunk_decoder))
            for frame in run.shown(decoded):
                ...

    Stages run in threads; `shown` yields the items of the last stage, updates the previews and handles interrupts.
    Progress shows on the node whose block is being sampled.

    beside: models that the caller's stages run. memory: bytes of VRAM that these stages need. mode: how these models
    share the device with the film's: "async" loads all of them, "sequential" loads them in turn for every block, "off"
    samples the whole film before it loads them. preview: makes preview frames `[T, h, w, 3]` uint8 of a block instead
    of `LatentColours`; only in mode "async", because the other modes do not load its model with the others. film: what
    the server tells of the film; by default the run begins it.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        beside: Sequence[comfy.model_patcher.ModelPatcher] = (),
        memory: int = 0,
        mode: Mode = "async",
        preview: Preview | None = None,
        film: RunningFilm | None = None,
    ) -> None:
        self._stream, self._beside, self._memory, self._mode = stream, list(beside), memory, mode
        colours = LatentColours(stream.latent_format)
        self._preview = StreamPreview(stream, preview if preview is not None and mode == "async" else colours)
        self._film = film
        self._models: list[comfy.model_patcher.ModelPatcher] = []
        # Evaluated once, because a film in a take reads every block on disk to find out what it must sample.
        unfinished = stream.unfinished
        self._sampling = max((member.spec.hosted_bytes for member in unfinished), default=0)
        self._scripts = {member.node: member.live for member in unfinished if member.live is not None}
        for member in unfinished:
            if not any(member.spec.hosted is model for model in self._models):
                self._models.append(member.spec.hosted)
        self._pipeline = Pipeline(workers())
        self._stopping = Event()
        self._events: SimpleQueue[Step | Block] = SimpleQueue()
        self._exit = ExitStack()

    def __enter__(self) -> StreamRun:
        with ExitStack() as entered:
            entered.enter_context(self._loaded())
            film = self._film or entered.enter_context(films().making(self._stream))
            film.scripts = self._scripts
            self._preview.film = film
            entered.enter_context(self._preview)
            entered.enter_context(self._pipeline)
            entered.callback(self._stopping.set)
            self._exit = entered.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._exit.close()
        if any(e is not None and is_out_of_memory(e) for e in (error, getattr(error, "__cause__", None))):
            # The host does the same after an OOM error that it catches itself: the next run starts with free VRAM.
            comfy.model_management.unload_all_models()

    def __iter__(self) -> Iterator[Block]:
        """Yields the blocks in order, like `shown`, for callers without stages."""
        return self.shown(self.stage("sampling", self._run_film()))

    def blocks(self) -> Iterator[Block]:
        """Returns the blocks in order, as the input of one stage."""
        blocks = sample(self._pipeline, self._run_film(), self._mode)
        return blocks if self._mode == "async" else self._swapped(blocks)

    def stage(self, name: str, items: Iterable[T], depth: int = 1) -> Stage[T]:
        """Starts a stage that makes the items in a thread."""
        return self._pipeline.stage(name, items, depth)

    def shown(self, stage: Stage[T]) -> Iterator[T]:
        """Yields the items of the last stage. Raises as `tick`; an error of sampling names the node that samples.

        Before an exception leaves this method, the last stage finishes the items of the earlier stages.
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
            owner = self._stream.owner(self._stream.film.available)
            raise RuntimeError(f"{owner.title} (node {owner.node}): {error.__cause__}") from error.__cause__
        except BaseException:
            self._stopping.set()
            self._pipeline.finish()
            raise

    def decoded(
        self,
        chunk_decoder: ChunkDecoder,
        is_written: Callable[[Block], bool] = lambda _: False,
        reach: int = 0,
        *,
        pieces: Callable[[Iterator[Block]], Iterator[Block]] = iter,
    ) -> Iterator[DecodedFrame]:
        """Returns the decoded frames of the blocks, as the input of one stage. `beside` has the decoder's models.

        is_written: whether the film's file has a block that need not be decoded. reach: how many earlier latent frames
        the pixels of a frame depend on. pieces: takes all blocks and yields what is decoded of them.

        If all weights stay on the device, decoding has its own CUDA stream. Otherwise sampling and decoding alternate.
        Encoding the text of a live script moves weights: both wait for it.
        """
        device_lock = self._stream.spec.device_lock
        own = self._mode == "async" and device_lock.stays
        cuda_stream = decoder_cuda_stream(self._beside[0].load_device) if own else None
        stream = DecodeStream(chunk_decoder, cuda_stream=cuda_stream, free=device_lock.free_vram)
        blocks = ceil(reach / self._stream.film.plan.block_frames)
        stopped, decoded = self._stopping.is_set, pieces(self.blocks())
        return decode(decoded, stream, stopped, device_lock.work, is_written=is_written, reach=blocks)

    def show(self, block: BlockSpec, frames: Tensor) -> None:
        """Shows frames `[T, H, W, 3]` uint8 that were decoded for the film in place of a preview of their block."""
        self._preview.decoded(block, frames)

    @property
    def seconds_per_block(self) -> float | None:
        """How long sampling a block took in this run; None if nothing was sampled."""
        return self._preview.seconds_per_block

    def tick(self) -> None:
        """Updates progress and previews. Raises the host's interrupt if the user has cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        while not self._events.empty():
            event = self._events.get()
            if isinstance(event, Step):
                self._preview.step(event)
            else:
                self._preview.block(event)
        self._preview.tick()

    def _run_film(self) -> Iterator[Block]:
        for block in self._stream.film.run(self._events.put, self._stopping.is_set):
            self._events.put(block)
            yield block

    def _swapped(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Loads the film's models to sample a block, and the models in `beside` to decode it."""
        while True:
            if self._mode == "sequential":
                self._load(self._models)
            block = next(blocks, None)
            if block is None:
                return
            self._load(self._beside)
            yield block

    def _load(self, models: list[comfy.model_patcher.ModelPatcher]) -> None:
        """Loads models with the VRAM that their work needs; a film that only replays has no models."""
        both = self._mode == "async"
        needed = self._memory + self._sampling if both else self._sampling if models is self._models else self._memory
        if models:
            self._stream.spec.device_lock.load(models, needed)

    @contextmanager
    def _loaded(self) -> Iterator[None]:
        self._load([*self._models, *self._beside] if self._mode == "async" else self._models)
        for model in self._models:
            model.pre_run()
        try:
            yield
        finally:
            self._stream.spec.device_lock.end_run()
            for model in self._models:
                model.cleanup()
            comfy.model_management.soft_empty_cache()
