"""A lock that threads share and one may have for itself: who waits for whom."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread

from longlive.longlive_core.pipeline.shared_lock import SharedLock

SOON, LONG = 0.2, 30.0


def begun(work: Callable[[], None]) -> Thread:
    thread = Thread(target=work, daemon=True)
    thread.start()
    return thread


def holder(lock: SharedLock, *, alone: bool) -> tuple[Thread, Event, Event]:
    """A thread that takes the lock; events: that it has it, and that it is to give it back."""
    has, give_back = Event(), Event()

    def hold() -> None:
        with lock if alone else lock.shared():
            has.set()
            give_back.wait(LONG)

    return begun(hold), has, give_back


def test_threads_share_it() -> None:
    """Two threads have it at once, so that neither waits for the other's work."""
    lock = SharedLock()
    _, has, give_back = holder(lock, alone=False)
    assert has.wait(LONG)
    with lock.shared():
        give_back.set()


def test_one_that_has_it_for_itself_waits_for_all_and_keeps_all_out() -> None:
    """It gets the lock when the last share is given back; nobody shares it meanwhile."""
    lock = SharedLock()
    _, shared, give_back = holder(lock, alone=False)
    assert shared.wait(LONG)
    _, alone, end = holder(lock, alone=True)
    assert not alone.wait(SOON)
    give_back.set()
    assert alone.wait(LONG)
    _, late, over = holder(lock, alone=False)
    assert not late.wait(SOON)
    end.set()
    assert late.wait(LONG)
    over.set()


def test_one_that_waits_for_it_goes_before_later_shares() -> None:
    """Threads that share it in turn would otherwise keep it out for ever."""
    lock = SharedLock()
    _, shared, give_back = holder(lock, alone=False)
    assert shared.wait(LONG)
    _, alone, end = holder(lock, alone=True)
    assert not alone.wait(SOON)
    _, late, over = holder(lock, alone=False)
    assert not late.wait(SOON)
    give_back.set()
    assert alone.wait(LONG) and not late.is_set()
    end.set(), over.set()
    assert late.wait(LONG)


def test_two_threads_that_share_it_and_want_it_for_themselves_take_turns() -> None:
    """Memory runs out in two decoders at once: each frees some, and neither waits for the share of the other."""
    lock, inside, most = SharedLock(), list[int](), list[int]()
    ready = [Event(), Event()]

    def work(me: int) -> None:
        with lock.shared():
            ready[me].set()
            ready[1 - me].wait(LONG)
            with lock, lock:
                inside.append(me)
                most.append(len(inside))
                inside.remove(me)
            with lock.shared():
                pass

    threads = [begun(lambda me=me: work(me)) for me in (0, 1)]
    for thread in threads:
        thread.join(LONG)
    assert most == [1, 1] and lock.is_free()
