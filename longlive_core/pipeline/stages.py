"""Stages of work, each an iterator in a thread of its own, a bounded number of items ahead of whoever takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, get_args

import torch

from ..types import Block

T = TypeVar("T")

# async: stages overlap. sequential: sampling and decoding in turn, so that models can swap between blocks.
# off: the whole film is sampled before the first block is decoded, so that models swap once.
Mode = Literal["async", "sequential", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)

# How long a wait lasts before it looks up: on some systems a wait without an end cannot be interrupted.
POLL_SECONDS = 0.05

MakeItems = Callable[[Callable[[T], None], Callable[[], bool]], Iterator[T]]


class StageError(RuntimeError):
    """What went wrong in `stage`; the error itself, with its own traceback, is the cause."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(f"{stage}: {format_error(error)}")
        self.stage = stage


def format_error(error: BaseException) -> str:
    """An error in one line; OSErrors of the system lose their number and keep their path."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def in_stage(name: str) -> Generator[None, None, None]:
    """Errors from inside become StageErrors of this stage; those of an earlier stage pass."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        raise StageError(name, error) from error


def staged(name: str, items: Iterable[T]) -> Generator[T, None, None]:
    """The items as they are made, in the caller's thread; errors of their making become StageErrors."""
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
    """The consumer's end of a stage: iterate, or `take` with a timeout until `done`. No item is None.

    The stage's error is raised behind its items, once. Made by `Pipeline`.
    """

    def __init__(self, name: str, depth: int, changed: Condition, before: tuple[Stage[Any], ...]) -> None:
        self.name, self.done = name, False
        self._depth, self._changed, self._before = depth, changed, before
        self._items: deque[tuple[T, bool]] = deque()  # and whether it was made, or told on the way
        self._waiting = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def take(self, timeout: float) -> T | None:
        """The next item, or None where none came in `timeout` seconds or none is left: then `done` is set.

        Raises StageError for what went wrong in this stage or one before it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended, timeout)
            if self._items:
                item, made = self._items.popleft()
                self._waiting -= made
                self._changed.notify_all()
                return item
            self.done = self._ended
            error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            # The error's traceback holds this frame: a cycle would keep all that the stage worked on alive.
            del error
        return None

    def __next__(self) -> T:
        while not self.done:
            item = self.take(POLL_SECONDS)
            if item is not None:
                return item
        raise StopIteration

    def stop(self) -> None:
        """Nothing new is begun; what is being made is finished and can be taken."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def stopped(self) -> bool:
        return self._stopped

    def notify(self, item: T) -> None:
        """Hands on an item from within the work, between those that it makes; it takes no room."""
        self._hand(item, made=False)

    def work(self, make: MakeItems[T], threads: int) -> None:
        """The thread's whole life. threads: that one operation may use; another number may give other bits.

        A new thread takes over the number that was set last, by any thread, but no sooner than its first operation that
        PyTorch itself splits: a convolution or matrix product before that would use every core.
        """
        torch.set_num_threads(threads)
        try:
            # The caller's mode is its thread's own; tensors of both must be of one kind.
            with torch.inference_mode(), closing(staged(self.name, make(self.notify, self.stopped))) as items:
                while self._has_room() and (item := next(items, None)) is not None:
                    self._hand(item, made=True)
                    del item
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def clear(self) -> None:
        """Lets go of what nobody took."""
        with self._changed:
            self._items.clear()
            self._error = None

    def _has_room(self) -> bool:
        """Waits until another item may be made; false where the work should end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._waiting < self._depth)
            return not self._stopped

    def _hand(self, item: T, *, made: bool) -> None:
        with self._changed:
            self._items.append((item, made))
            self._waiting += made
            self._changed.notify_all()

    def _end(self, error: BaseException | None) -> None:
        for stage in self._before:
            stage.stop()
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()


class Pipeline:
    """Stages one behind the other.

        with Pipeline() as line:
            blocks = line.stage("sampling", generate(...))
            frames = line.stage("decoding", decode(blocks), depth=4)
            for frame in frames:
                ...

    Of each stage at most `depth` finished items wait, so that memory is bounded whoever is slower. A stage that ends,
    by an error or early, stops those before it; those behind it finish what they were given. Leaving the `with` block,
    however that comes about, stops all of them and waits until every thread has ended.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._stages: list[Stage[Any]] = []
        self._threads: list[Thread] = []

    def stage(self, name: str, items: Iterable[T], depth: int = 1) -> Stage[T]:
        """The items, made in a thread from now on, behind the stages begun before."""
        return self.start(name, lambda _notify, _should_stop: iter(items), depth)

    def start(self, name: str, make: MakeItems[T], depth: int = 1) -> Stage[T]:
        """As `stage`, for work that reports progress: `make(notify, should_stop)` gives the iterator.

        What `notify` is given comes out between the items, in order, and does not count against `depth`.
        """
        stage = Stage[T](name, depth, self._changed, tuple(self._stages))
        thread = Thread(target=stage.work, args=(make, torch.get_num_threads()), name=f"longlive-{name}", daemon=True)
        self._stages.append(stage)
        self._threads.append(thread)
        thread.start()
        return stage

    def finish(self) -> None:
        """Stops all stages but the last, and waits while that one works off what it was given; its error is dropped.

        For a consumer that has an error of its own to raise.
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
        for thread in self._threads:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
        for stage in self._stages:
            stage.clear()


def sample(line: Pipeline, blocks: Iterable[Block], mode: Mode) -> Iterator[Block]:
    """The stage of sampling: in a thread of its own in mode "async", else in the thread that takes the blocks."""
    if mode == "async":
        # On the host latents are finished, whatever CUDA stream made them.
        return line.stage("sampling", (Block(block.spec, block.latents.cpu()) for block in blocks))
    return staged("sampling", blocks if mode == "sequential" else sample_all_first(blocks))


def sample_all_first(blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks on the host, all made before the first is handed on; an error is raised behind the finished ones."""
    made: deque[Block] = deque()
    failed: Exception | None = None
    try:
        made.extend(Block(block.spec, block.latents.cpu()) for block in blocks)
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
