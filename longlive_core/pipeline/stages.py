"""Stages of a pipeline: each runs an iterator in its own thread, a bounded number of items ahead of its consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from functools import partial
from threading import Condition, Event
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, get_args

import torch

from ..types import Block
from .workers import POLL_SECONDS, Workers

T = TypeVar("T")

# async: the stages overlap. sequential: every block is sampled and then decoded, so that the models can be swapped in
# between. off: the whole film is sampled before the first block is decoded, so that the models are swapped once.
Mode = Literal["async", "sequential", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)

MakeItems = Callable[[Callable[[T], None], Callable[[], bool]], Iterator[T]]
"""`make(notify, should_stop)` returns the iterator of a stage's items."""


class StageError(RuntimeError):
    """An error in a stage; its `__cause__` is the original error with its traceback."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(f"{stage}: {format_error(error)}")
        self.stage = stage


def format_error(error: BaseException) -> str:
    """Formats an error as one line; an OSError keeps its path and loses its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


class in_stage(AbstractContextManager[None]):
    """Turns errors that are raised inside into StageErrors of this stage; errors of earlier stages pass.

    It is a class, because from Python 3.13 on the frame of a generator's context manager keeps the error, and so the
    K/V in its traceback, alive in a cycle.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, StageError):
            raise StageError(self._name, error) from error


def staged(name: str, items: Iterable[T]) -> Generator[T, None, None]:
    """Yields the items in the caller's thread; errors of the iterator become StageErrors."""
    source = iter(items)
    try:
        while True:
            with in_stage(name):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item
            del item
    finally:
        if isinstance(source, Generator):
            with in_stage(name):
                source.close()


class Stage(Iterator[T], Generic[T]):
    """The consumer's end of a stage, made by `Pipeline`: iterate, or call `take` with a timeout until `done`.

    Items must not be None. The stage's error is raised once, after its items.
    """

    def __init__(self, name: str, depth: int, changed: Condition, before: tuple[Stage[Any], ...]) -> None:
        self.name, self.done = name, False
        self._depth, self._changed, self._before = depth, changed, before
        self._items: deque[tuple[T, bool]] = deque()  # (item, whether it counts against the depth)
        self._waiting = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def take(self, timeout: float) -> T | None:
        """Returns the next item, or None after `timeout` seconds or if no item is left, which also sets `done`.

        Raises StageError for an error in this stage or in an earlier one.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended, timeout)
            if self._items:
                item, counts = self._items.popleft()
                self._waiting -= counts
                self._changed.notify_all()
                return item
            self.done = self._ended
            error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            # The error's traceback refers to this frame; the cycle would keep the stage's tensors alive.
            del error
        return None

    def __next__(self) -> T:
        while not self.done:
            item = self.take(POLL_SECONDS)
            if item is not None:
                return item
        raise StopIteration

    def stop(self) -> None:
        """Stops the stage after the item that is being made; items that are made can still be taken."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def notify(self, item: T) -> None:
        """Hands on an additional item, such as progress, which does not count against the depth."""
        self._put(item, counts=False)

    def work(self, make: MakeItems[T], threads: int) -> None:
        """Runs in the stage's thread. threads: how many threads an operation may use; another number may change bits.

        A new thread inherits the number that any thread set last, but only from its first operation that PyTorch itself
        splits: a convolution or matrix product before that would use every core. Hence the explicit call.
        """
        torch.set_num_threads(threads)
        try:
            # Inference mode belongs to a thread, and normal and inference tensors must not be mixed.
            with torch.inference_mode(), closing(staged(self.name, make(self.notify, self.stopped))) as items:
                while self._wait_for_demand() and (item := next(items, None)) is not None:
                    self._put(item, counts=True)
                    del item
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def clear(self) -> None:
        """Drops the items and the error that nobody took."""
        with self._changed:
            self._items.clear()
            self._error = None

    def _wait_for_demand(self) -> bool:
        """Waits until another item may be made; returns false after a stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting < self._depth)
            return not self._stopped

    def _put(self, item: T, *, counts: bool) -> None:
        with self._changed:
            self._items.append((item, counts))
            self._waiting += counts
            self._changed.notify_all()

    def _end(self, error: BaseException | None) -> None:
        for stage in self._before:
            stage.stop()
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()


class Pipeline:
    """A chain of stages in threads.

        with Pipeline() as pipeline:
            blocks = pipeline.stage("sampling", generate(...))
            frames = pipeline.stage("decoding", decode(blocks), depth=4)
            for frame in frames:
                ...

    At most `depth` finished items of each stage wait, which bounds the memory whichever stage is slower. A stage that
    ends early or by an error stops the stages before it; the stages after it finish their items. Leaving the `with`
    block, also by an exception, stops all stages and waits until every one has ended.
    """

    def __init__(self, workers: Workers | None = None) -> None:
        """workers: the threads to run in, which live on; by default threads of its own, which end with it."""
        self._changed = Condition()
        self._stages: list[Stage[Any]] = []
        self._ended: list[Event] = []
        self._workers, self._own = (Workers(), True) if workers is None else (workers, False)

    def stage(self, name: str, items: Iterable[T], depth: int = 1) -> Stage[T]:
        """Starts a thread that iterates `items`, after the stages that were started before."""
        return self.start(name, lambda _notify, _should_stop: iter(items), depth)

    def start(self, name: str, make: MakeItems[T], depth: int = 1) -> Stage[T]:
        """Like `stage`, for work that reports progress: `make(notify, should_stop)` returns the iterator.

        Items passed to `notify` come out between the others, in order, and do not count against `depth`.
        """
        stage = Stage[T](name, depth, self._changed, tuple(self._stages))
        self._stages.append(stage)
        self._ended.append(self._workers.start(name, partial(stage.work, make, torch.get_num_threads())))
        return stage

    def finish(self) -> None:
        """Stops all stages except the last one and waits until it has finished its items; its error is dropped.

        For a consumer that raises its own error.
        """
        for stage in self._stages[:-1] or self._stages:
            stage.stop()
        with suppress(StageError):
            for _ in self._stages[-1]:
                pass

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for stage in self._stages:
            stage.stop()
        for ended in self._ended:
            while not ended.wait(POLL_SECONDS):
                pass
        if self._own:
            self._workers.close()
        for stage in self._stages:
            stage.clear()


def sample(pipeline: Pipeline, blocks: Iterable[Block], mode: Mode) -> Iterator[Block]:
    """The sampling stage: in its own thread in mode "async", otherwise in the thread that takes the blocks."""
    if mode == "async":
        # The copy to the host waits for the CUDA stream that made the latents.
        return pipeline.stage("sampling", (Block(block.spec, block.latents.cpu()) for block in blocks))
    return staged("sampling", blocks if mode == "sequential" else sample_all_first(blocks))


def sample_all_first(blocks: Iterable[Block]) -> Iterator[Block]:
    """Samples all blocks before it yields the first one, on the host; an error is raised after the finished blocks."""
    finished: deque[Block] = deque()
    failure: Exception | None = None
    try:
        finished.extend(Block(block.spec, block.latents.cpu()) for block in blocks)
    except Exception as error:
        failure = error
    while finished:
        yield finished.popleft()
    try:
        if failure is not None:
            raise failure
    finally:
        # The error's traceback refers to this frame; the cycle would keep the model's memory alive.
        del failure
