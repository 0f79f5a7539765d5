"""Threads that outlive a film: what PyTorch and cuDNN keep for a thread, such as their plans, serves the next film."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Lock, Thread

# The longest wait on a lock or a thread: on some systems Ctrl-C cannot interrupt a wait without a timeout.
POLL_SECONDS = 0.05

Work = Callable[[], None]


class Workers:
    """Threads by name. Work of a name goes to a thread that did such work before, if one is idle.

        workers = Workers()
        ended = workers.start("decoding", work)
        ended.wait()
        workers.close()

    The threads end with `close` or with the process.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: defaultdict[str, list[_Worker]] = defaultdict(list)
        self._all: list[_Worker] = []

    def start(self, name: str, work: Work) -> Event:
        """Runs work, which must not raise, in a thread of this name; returns an event that is set when it has ended."""
        with self._lock:
            idle = self._idle[name]
            worker = idle.pop() if idle else self._new(name)
        ended = Event()

        def end() -> None:
            with self._lock:
                self._idle[name].append(worker)
            ended.set()

        worker.work.put((work, end))
        return ended

    def close(self) -> None:
        """Ends the threads, and waits for the work that they are doing."""
        with self._lock:
            workers, self._all = self._all, []
            self._idle.clear()
        for worker in workers:
            worker.work.put(None)
        for worker in workers:
            while worker.is_alive():
                worker.join(POLL_SECONDS)

    def _new(self, name: str) -> _Worker:
        worker = _Worker(name)
        self._all.append(worker)
        worker.start()
        return worker


class _Worker(Thread):
    """Does the work of its queue until None comes."""

    def __init__(self, name: str) -> None:
        super().__init__(name=f"longlive-{name}", daemon=True)
        self.work: SimpleQueue[tuple[Work, Work] | None] = SimpleQueue()

    def run(self) -> None:
        while (item := self.work.get()) is not None:
            work, end = item
            try:
                work()
            finally:
                # Nothing of it may stay alive while the thread is idle.
                del item, work
                end()
                del end
