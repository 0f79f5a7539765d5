"""A lock that many threads share or one thread holds exclusively."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Condition, get_ident

from .workers import POLL_SECONDS


class SharedLock:
    """A reentrant lock: `with lock:` holds it exclusively, `with lock.shared():` beside other threads that share it.

    A thread that waits to hold it exclusively goes before threads that wait to share it, so that it does not wait for
    ever. A thread that shares the lock and then takes it exclusively gives up its share until it releases the lock, so
    that two such threads do not wait for each other.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._shares: Counter[int] = Counter()
        self._owner: int | None = None
        self._depth = self._waiting = self._given_up = 0

    def __enter__(self) -> SharedLock:
        me = get_ident()
        with self._changed:
            if self._owner != me:
                given_up = self._shares.pop(me, 0)
                self._waiting += 1
                self._changed.notify_all()
                try:
                    self._wait(lambda: self._owner is None and not self._shares)
                except BaseException:
                    self._restore(me, given_up)
                    raise
                finally:
                    self._waiting -= 1
                self._owner, self._given_up = me, given_up
            self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._depth -= 1
            if self._depth == 0:
                self._restore(get_ident(), self._given_up)
                self._owner, self._given_up = None, 0
                self._changed.notify_all()

    @contextmanager
    def shared(self) -> Generator[None, None, None]:
        """Shares the lock. A thread that holds it exclusively, or shares it already, does not wait."""
        me = get_ident()
        with self._changed:
            owns = self._owner == me
            if not owns:
                self._wait(lambda: me in self._shares or (self._owner is None and not self._waiting))
                self._shares[me] += 1
        try:
            yield
        finally:
            if not owns:
                self._give_back(me)

    def is_free(self) -> bool:
        """Whether no thread holds or shares it."""
        with self._changed:
            return self._owner is None and not self._shares

    def _give_back(self, me: int) -> None:
        with self._changed:
            self._shares[me] -= 1
            if not self._shares[me]:
                del self._shares[me]
            self._changed.notify_all()

    def _restore(self, me: int, shares: int) -> None:
        if shares:
            self._shares[me] = shares

    def _wait(self, ready: Callable[[], bool]) -> None:
        while not self._changed.wait_for(ready, POLL_SECONDS):
            pass
