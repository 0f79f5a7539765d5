"""Cancelling a film: at once, without a trace in the server, and nothing finished is lost."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from longlive.longlive_core.video import read_video

from .graphs import FILM, SAMPLER, film, film_frames
from .host import Host, Start
from .run import Event, Run

pytestmark = pytest.mark.comfy

MINUTE = "\n".join(
    f"Shot {number} (12s): {line}"
    for number, line in enumerate(
        (
            "a big red ring sways on the left in front of a striped navy wall",
            "a big red ring bobs in the middle against a plain wine wall",
            "a big red ring circles at the top in front of a checked forest wall",
            "a big red ring rests on the right against a striped grey wall",
            "a big red ring sways at the bottom against a plain brown wall",
        ),
        1,
    )
)
PATIENCE = 120
MEDIUM = "\n".join(MINUTE.replace("12s", "4s").splitlines()[:3])
KEPT = re.compile(r"LongLive: (\S+\.mp4) holds the first (\d+) of (\d+) frames")


@pytest.fixture(scope="module")
def host(start: Start) -> Iterator[Host]:
    """A server of its own, whose threads and memory nobody else changes."""
    with start() as own:
        yield own


# Steps that may end while an interrupt travels; a block is four steps, the film 180.
UNDER_WAY = 8


@dataclass
class Cancel:
    """Interrupts a run when the sampler has reported its progress `after` times, 0 being the start of the run.

    `step`: how many steps of the film the sampler had reported when the server had answered the interrupt.
    """

    host: Host
    after: int
    step: int | None = None

    def __call__(self, run: Run, _: Event) -> None:
        if self.step is None and len(run.progress[SAMPLER]) >= self.after:
            self.host.interrupt()
            self.step = steps(run)


def steps(run: Run) -> int:
    """How many steps of the film the sampler has reported, those of earlier runs of the film included."""
    return max((state["value"] for state in run.progress[SAMPLER] if state["state"] == "running"), default=0)


def settled(host: Host, threads: int, patience: float = 10.0) -> int:
    """The server's threads, as soon as they are no more than `threads`, at the latest after some seconds."""
    end = time.monotonic() + patience
    while (now := host.threads()) > threads and time.monotonic() < end:
        time.sleep(0.05)
    return now


def test_ten_cancels_at_any_moment(host: Host) -> None:
    """Cancelled at any moment, a film ends with the step under way, and leaves neither threads nor memory behind.

    What was finished plays, and the log says where it is and how many frames it has.
    """
    moments = random.Random(5)
    assert host.run(film(MINUTE, 99), PATIENCE, on_event=Cancel(host, 60)).interrupted
    threads, memory = host.threads(), list[int]()
    for index, after in enumerate((0, 1, *moments.sample(range(2, 60), 8))):
        cancel = Cancel(host, after)
        before = host.log.stat().st_size
        run = host.run(film(MINUTE, 100 + index // 2), PATIENCE, on_event=cancel)
        memory.append(host.rss())
        assert run.interrupted and cancel.step is not None
        assert steps(run) <= cancel.step + UNDER_WAY, "the sampler goes on after the interrupt"
        message = KEPT.findall(host.log.read_bytes()[before:].decode())
        if len(message) == 0:
            assert steps(run) < 4, "a film with a block says what it keeps"
            continue
        ((path, kept, planned),) = message
        assert 0 < int(kept) < int(planned)
        assert int(kept) <= 32 * (cancel.step + UNDER_WAY) // 4, "blocks are made after the interrupt"
        assert len(read_video(path)) == int(kept)
    # The server's own executor may start one more thread meanwhile; a thread left behind by each film would be ten.
    assert settled(host, threads + 1) <= threads + 1
    # It goes up and down by 30 MB over forty cancels, without a trend; the lowest of each half is steadier.
    assert min(memory[5:]) - min(memory[:5]) < 30e6


def test_a_cancelled_film_goes_on(host: Host) -> None:
    """Queued again, a cancelled film goes on: kept blocks come unsampled, and it is the film that was never stopped."""
    stopped: list[int] = []

    def stop(run: Run, _: Event) -> None:
        states = run.progress[SAMPLER]
        if not stopped and states and states[-1]["value"] >= 18:
            stopped.append(states[-1]["value"])
            host.interrupt(run.prompt_id)

    cancelled = host.run(film(MEDIUM, 7), PATIENCE, on_event=stop)
    assert cancelled.interrupted
    (kept,) = [event.data for event in cancelled.events if event.type == "longlive.film"][-1:]
    assert kept["state"] == "stopped" and 0 < kept["frames"] < kept["total_frames"] == 285
    assert len(read_video(host.base / "output" / kept["subfolder"] / kept["name"])) == kept["frames"]
    again = host.run(film(MEDIUM, 7), PATIENCE)
    assert again.ok, again.error
    assert again.executed == [FILM]
    (kept,) = [line for line in again.texts[SAMPLER] if "finished already" in line]
    blocks, total = map(int, re.findall(r"\d+", kept))
    assert blocks >= stopped[0] // 4
    first = min(state["value"] for state in again.progress[SAMPLER] if state["max"] == 4 * total)
    assert first >= 4 * blocks
    fresh = film(MEDIUM + "\n", 7)  # the same film to the model, another one to the cache
    whole = host.run(fresh, PATIENCE)
    assert whole.ok
    assert SAMPLER in whole.executed
    assert torch.equal(film_frames(host, again), film_frames(host, whole))
