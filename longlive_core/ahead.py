"""A film drawn by a thread of its own, a little ahead of whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from types import TracebackType

import torch

from .generation import Step
from .types import Block

Draw = Callable[[Callable[[Step], None], Callable[[], bool]], Iterator[Block]]

# How long the thread sleeps before it looks again whether it should end while nobody takes its blocks.
PATIENCE = 0.05


class Ahead:
    """Steps and blocks of a draw, in order, while the next block is being made.

        with Ahead(film.draw) as film:
            while not film.done:
                event = film.take(timeout=0.05)     # Step, Block, or None where nothing came in time
                ...

    At most `depth` finished blocks wait to be taken, so that memory is bounded whoever is slower. Leaving the `with`
    block stops the thread between two model calls and waits for its end. What the draw raises is raised by `take`,
    after the blocks before it.
    """

    def __init__(self, draw: Draw, depth: int = 1) -> None:
        self.done = False
        self._draw = draw
        self._events: SimpleQueue[Step | Block | BaseException | None] = SimpleQueue()
        self._room = Semaphore(depth)
        self._stop = Event()
        self._thread = Thread(target=self._work, name="longlive-sampler", daemon=True)

    def take(self, timeout: float) -> Step | Block | None:
        """The next event, or None after `timeout` seconds without one; sets `done` at the film's end."""
        try:
            event = self._events.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(event, BaseException):
            self.done = True
            try:
                raise event
            finally:
                # The error's traceback holds this frame: a cycle would keep the draw, and its memory, alive.
                del event
        if event is None:
            self.done = True
        elif isinstance(event, Block):
            self._room.release()
        return event

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            # The caller's mode is its thread's own; tensors of both must be of one kind.
            with torch.inference_mode():
                blocks = self._draw(self._events.put, self._stop.is_set)
                while self._has_room() and (block := next(blocks, None)) is not None:
                    self._events.put(block)
        except BaseException as error:
            self._events.put(error)
        else:
            self._events.put(None)

    def _has_room(self) -> bool:
        """Waits until another block may be made; false where the thread should end."""
        while not self._room.acquire(timeout=PATIENCE):
            if self._stop.is_set():
                return False
        return not self._stop.is_set()
