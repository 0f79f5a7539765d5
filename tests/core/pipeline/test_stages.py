"""A film that a stage samples ahead in a thread: order, bound, end and errors."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import perf_counter, sleep
from weakref import ref

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.pipeline.stages import MakeItems, Pipeline, Stage
from longlive.longlive_core.sampling.generation import Step
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.types import Block

from ..conftest import Tiny

PLAN = "A A |B B B |C"
Events = Stage[Step | Block]
OnStep = Callable[[Step], None]
ShouldStop = Callable[[], bool]


class Slow:
    """Yields blocks of two steps of `step` seconds each; `made` counts finished blocks. Fails at block `bad`."""

    def __init__(self, plan: BlockPlan, step: float = 0.0, bad: int | None = None) -> None:
        self.plan, self.step, self.bad = plan, step, bad
        self.made, self.stopped, self.closed = 0, False, False

    def __call__(self, on_step: OnStep, should_stop: ShouldStop) -> Iterator[Block]:
        try:
            for spec in self.plan.blocks:
                if spec.index == self.bad:
                    raise RuntimeError(f"block {spec.index} went wrong")
                for step in (1, 2):
                    if should_stop():
                        self.stopped = True
                        return
                    sleep(self.step)
                    on_step(Step(spec, step, 2, torch.zeros(1)))
                self.made += 1
                yield Block(spec, torch.full((1,), float(spec.index)))
        finally:
            self.closed = True


@contextmanager
def ahead(run: MakeItems[Step | Block], depth: int = 1) -> Generator[Events, None, None]:
    """The run in a stage's thread."""
    with Pipeline() as line:
        yield line.start("sampling", run, depth)


def events(film: Events) -> Iterator[Step | Block]:
    """All that comes; fails rather than hang."""
    end = perf_counter() + 20
    while not film.done:
        assert perf_counter() < end
        event = film.take(0.02)
        if event is not None:
            yield event


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "longlive-sampling"]


def settled_count(count: Callable[[], int]) -> int:
    """The count, once it has stood still for four times the sampler's patience."""
    last, since = count(), perf_counter()
    while perf_counter() - since < 0.2:
        sleep(0.01)
        if count() != last:
            last, since = count(), perf_counter()
    return last


@pytest.mark.parametrize("depth", [1, 3])
def test_events_come_in_order(tiny: Tiny, depth: int) -> None:
    """Every block of the film once, each after its steps, then the end; the film equals that of a plain run."""
    film = Film(
        tiny.plan(PLAN),
        lambda _, known, on_step, should_stop: tiny.generate(
            PLAN, known=known, on_step=on_step, should_stop=should_stop
        ),
    )
    with ahead(film.run, depth) as stage:
        got = list(events(stage))
        assert stage.done and stage.take(0.01) is None
    told = [(event.block.index, event.index) if isinstance(event, Step) else (event.index, None) for event in got]
    assert told == [(block, step) for block in range(6) for step in (1, 2, None)]
    blocks = [event for event in got if isinstance(event, Block)]
    assert torch.equal(torch.cat([block.latents for block in blocks], dim=2), tiny.film(PLAN))
    assert film.complete and not samplers()


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_at_most_depth_blocks_wait(tiny: Tiny, depth: int) -> None:
    """While nobody takes, sampling halts with `depth` finished blocks; each block taken makes room for one more."""
    run = Slow(tiny.plan(PLAN))
    with ahead(run, depth) as film:
        assert settled_count(lambda: run.made) == depth
        for taken, event in enumerate((event for event in events(film) if isinstance(event, Block)), 1):
            assert event.index == taken - 1
            assert settled_count(lambda: run.made) == min(6, taken + depth)


def test_nothing_comes_in_time(tiny: Tiny) -> None:
    """`take` waits no longer than its timeout, and None is not the end."""
    with ahead(Slow(tiny.plan("A"), step=0.3)) as film:
        before = perf_counter()
        assert film.take(0.02) is None and not film.done
        assert perf_counter() - before < 0.2


@pytest.mark.parametrize("taken", [0, 1])
def test_leaving_early_ends_the_thread(tiny: Tiny, taken: int) -> None:
    """A slow run is stopped between two steps and closed; the caller continues well under a second later."""
    run = Slow(tiny.plan(PLAN), step=0.1)
    with ahead(run, depth=9) as film:
        while run.made < taken:
            film.take(0.02)
        sleep(0.05)
        left = perf_counter()
    assert perf_counter() - left < 0.5
    assert run.stopped and run.closed and run.made <= taken + 1
    assert not samplers()


def test_leaving_while_blocks_wait_ends_the_thread(tiny: Tiny) -> None:
    """A stage that waits for its consumer notices a stop and closes its run."""
    run = Slow(tiny.plan(PLAN))
    with ahead(run) as film:
        assert settled_count(lambda: run.made) and film.take(1) is not None
        left = perf_counter()
    assert perf_counter() - left < 0.5
    assert run.closed and run.made < 6 and not samplers()


def test_an_error_outside_ends_the_thread(tiny: Tiny) -> None:
    """The host's interrupt, raised between two events, passes through and leaves no sampler behind."""
    run = Slow(tiny.plan(PLAN), step=0.05)
    with pytest.raises(KeyboardInterrupt), ahead(run) as film:
        film.take(1)
        raise KeyboardInterrupt
    assert run.closed and not samplers()


@pytest.mark.parametrize("bad", [0, 2])
def test_an_error_of_the_draw_comes_after_its_blocks(tiny: Tiny, bad: int) -> None:
    """`take` raises it once, when the good blocks are taken; then the film is done."""
    got: list[int] = []
    with ahead(Slow(tiny.plan(PLAN), bad=bad)) as film:
        with pytest.raises(RuntimeError, match=f"block {bad} went wrong"):
            got.extend(event.index for event in events(film) if isinstance(event, Block))
        assert film.done and film.take(0.01) is None
    assert got == list(range(bad)) and not samplers()


def test_what_a_failed_draw_held_goes_with_its_error(tiny: Tiny) -> None:
    """The error's traceback refers to the run and its gigabytes: no cycle may keep them until the next collection."""

    class Memory:
        """An object in place of keys and values."""

    held: list[ref[Memory]] = []

    def run(_: OnStep, __: ShouldStop) -> Iterator[Block]:
        memory = Memory()
        held.append(ref(memory))
        yield Block(tiny.plan("A").blocks[0], torch.zeros(1))
        raise RuntimeError("went wrong")

    def consume() -> None:
        with ahead(run) as film:
            try:
                list(events(film))
            except RuntimeError:
                return

    gc.collect()
    gc.disable()
    try:
        consume()
        assert held and held[0]() is None
    finally:
        gc.enable()


def test_the_draw_runs_in_inference_mode(tiny: Tiny) -> None:
    """In the stage's thread, whatever the caller's mode; the caller's mode stays unchanged."""
    modes: list[bool] = []

    def run(on_step: OnStep, should_stop: ShouldStop) -> Iterator[Block]:
        modes.append(torch.is_inference_mode_enabled())
        yield from Slow(tiny.plan("A A"))(on_step, should_stop)
        modes.append(torch.is_inference_mode_enabled())

    with ahead(run) as film:
        blocks = [event for event in events(film) if isinstance(event, Block)]
    assert modes == [True, True] and all(block.latents.is_inference() for block in blocks)
    assert not torch.is_inference_mode_enabled()
