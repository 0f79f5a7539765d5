"""A film is sampled once: a run that repeats, resumes or continues it samples only missing blocks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from weakref import ref

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.live_script import LiveScript
from longlive.longlive_core.film.sampler_settings import OnStep, ShouldStop
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import WAN22_TI2V_5B, KVCache, TextKVCache
from longlive.longlive_core.sampling.generation import Generation, KnownLatents, Step
from longlive.longlive_core.script import BlockPlan, ShotScript
from longlive.longlive_core.types import Block, LatentShape
from torch import Tensor

from ..conftest import Tiny

SHOTS = "A A |B B B |C"
STEPS = 2
MEMORIES: list[dict[str, Any]] = [{}, {"shot_clean_recache": True}, {"relative_rope": True}, {"kv_format": "bf16"}]


class CountingModel:
    """Begins films, and counts what they ask of the model: `sampled` steps and `clean` passes."""

    def __init__(self, tiny: Tiny, memory: MemoryConfig | None = None, **options: Any) -> None:  # noqa: ANN401
        self.tiny, self.memory, self.options = tiny, memory, options
        self.model, self.text_kv = tiny.model, tiny.model.text_kv
        self.config, self.dtype, self.device = tiny.model.config, tiny.model.dtype, tiny.model.device
        self.sampled = self.clean = self.begun = 0
        self.alive: list[ref[object]] = []

    def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
        self.sampled += 1
        return self.model(x, t, text, kv, positions)

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        self.clean += 1
        self.model.write_kv(x, t, text, kv, positions)

    def film(
        self,
        plan: BlockPlan,
        start: Tensor | None = None,
        earlier: Film | None = None,
        live: LiveScript | None = None,
    ) -> Film:
        return Film(plan, self.start, start=start, earlier=earlier, live=live)

    def start(
        self, plan: BlockPlan, known: KnownLatents, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        hooks = {"on_step": on_step, "should_stop": should_stop}
        made = self.tiny.generate("", self.memory, plan=plan, model=self, known=known, **hooks, **self.options)
        self.begun += 1
        self.alive += [ref(made), ref(made._cache)]
        return made

    def cost(self, run: Callable[[], object]) -> tuple[int, int]:
        """Steps and clean passes that `run` takes."""
        sampled, clean = self.sampled, self.clean
        run()
        return self.sampled - sampled, self.clean - clean


def joined(blocks: Iterable[Block]) -> Tensor:
    return torch.cat([block.latents for block in blocks], dim=2)


class Trouble(Exception):
    """An error like the host's cancel."""


def stop(film: Film, at: int) -> None:
    """Stopped by the `at`-th question whether to."""
    questions = iter(range(at + 1))
    list(film.run(should_stop=lambda: next(questions, at) == at))


def fail(film: Film, at: int) -> None:
    """Lets the callback of the `at`-th step fail."""
    steps = iter(range(at + 1))

    def on_step(_: Step) -> None:
        if next(steps) == at:
            raise Trouble

    with pytest.raises(Trouble):
        list(film.run(on_step))


def close(film: Film, at: int) -> None:
    """Closes the run after `at + 1` blocks or so."""
    run = film.run()
    for _ in range(at % len(film.plan.blocks) + 1):
        next(run)
    run.close()


def test_a_film_drawn_again_is_replayed(tiny: Tiny) -> None:
    """The second run yields the same blocks as the first and calls the model for none of them."""
    model, plan = CountingModel(tiny), tiny.plan(SHOTS)
    film = model.film(plan)
    assert (film.finished, film.complete, film.needs_model, model.begun) == (0, False, True, 0)
    first = list(film.run())
    assert (film.finished, film.complete, film.needs_model) == (len(plan.blocks), True, False)
    assert [block.spec for block in first] == list(plan.blocks)
    assert torch.equal(joined(first), tiny.film(SHOTS))
    again: list[Block] = []
    assert model.cost(lambda: again.extend(film.run())) == (0, 0)
    assert model.begun == 1 and all(one is other for one, other in zip(first, again, strict=True))


def test_nothing_is_made_before_it_is_asked_for(tiny: Tiny) -> None:
    """A run begins with its first `next` and samples one block for each."""
    model = CountingModel(tiny)
    run = model.film(tiny.plan(SHOTS)).run()
    assert model.begun == 0
    next(run)
    assert (model.sampled, model.clean) == (STEPS, 0)


@pytest.mark.slow
@pytest.mark.parametrize("changes", MEMORIES, ids=str)
@pytest.mark.parametrize("interrupt", [stop, fail, close])
def test_an_interrupted_film_goes_on_to_the_bit(
    tiny: Tiny, changes: dict[str, Any], interrupt: Callable[[Film, int], None]
) -> None:
    """Wherever a run ends, the next one samples only missing blocks, and the film equals that of one run."""
    memory, plan = tiny.memory(**changes), tiny.plan(SHOTS)
    whole = tiny.film(SHOTS, memory)
    for at in range(len(plan.blocks) * STEPS):
        model = CountingModel(tiny, memory)
        film, blocks = model.film(plan), list[Block]()
        interrupt(film, at)
        kept = film.finished
        missing = len(plan.blocks) - kept
        expected = (missing * STEPS, len(plan.blocks) - 1) if missing else (0, 0)
        assert model.cost(lambda film=film, blocks=blocks: blocks.extend(film.run())) == expected
        assert torch.equal(joined(blocks), whole)


def test_interrupts_add_up_to_one_film(tiny: Tiny) -> None:
    """A film that is stopped in every run but the last samples each block once."""
    model, plan = CountingModel(tiny), tiny.plan(SHOTS)
    film = model.film(plan)
    for made in range(len(plan.blocks)):
        assert film.finished == made
        run = film.run()
        assert [next(run).index for _ in range(made + 1)] == list(range(made + 1))
        run.close()
    assert model.sampled == len(plan.blocks) * STEPS
    assert torch.equal(joined(film.run()), tiny.film(SHOTS))


@pytest.mark.slow
@pytest.mark.parametrize("interrupt", [stop, fail, close, lambda film, _: list(film.run())])
def test_no_memory_outlives_a_draw(tiny: Tiny, interrupt: Callable[[Film, int], object]) -> None:
    """The KV cache, gigabytes in the full model, is freed when a run ends in any way; the blocks stay."""
    model = CountingModel(tiny)
    film = model.film(tiny.plan(SHOTS))
    interrupt(film, 5)
    gc.collect()
    assert model.alive and not [one() for one in model.alive if one() is not None]
    assert film.finished > 0


def test_a_stop_at_once_gives_what_is_kept(tiny: Tiny) -> None:
    """A run that is stopped at once yields the finished blocks without calling the model."""
    model = CountingModel(tiny)
    film = model.film(tiny.plan(SHOTS))
    assert list(film.run(should_stop=lambda: True)) == []
    stop(film, 8)
    kept, shown = film.finished, list[Block]()
    assert 0 < kept < 6
    assert model.cost(lambda: shown.extend(film.run(should_stop=lambda: True))) == (0, 0)
    assert [block.index for block in shown] == list(range(kept))


@pytest.mark.slow
@pytest.mark.parametrize("given", [1, 2, 5, 12])
@pytest.mark.parametrize("kept", [0, 1, 2, 4])
def test_known_latents_stay_when_a_film_is_resumed(tiny: Tiny, given: int, kept: int) -> None:
    """The film begins with its start image, or its known blocks, whether or not it was stopped among them."""
    start, plan = torch.randn(1, 4, given, 4, 6, generator=torch.Generator().manual_seed(1)), tiny.plan(SHOTS)
    film = CountingModel(tiny).film(plan, start)
    run = film.run()
    for _ in range(kept):
        next(run)
    del run
    resumed = joined(film.run())
    assert torch.equal(resumed[:, :, :given], start)
    assert torch.equal(resumed, tiny.film(SHOTS, prefix=start))


def split(tiny: Tiny) -> tuple[BlockPlan, BlockPlan]:
    """The plan of a film and of its beginning."""
    whole = tiny.plan(SHOTS)
    return whole, replace(whole, blocks=whole.blocks[:3])


@pytest.mark.parametrize("changes", MEMORIES, ids=str)
def test_a_film_goes_on_from_an_earlier_one(tiny: Tiny, changes: dict[str, Any]) -> None:
    """It begins with the earlier film's blocks, samples only its own, and equals one film of the joined plan."""
    memory = tiny.memory(**changes)
    model, (whole, beginning) = CountingModel(tiny, memory), split(tiny)
    earlier = model.film(beginning)
    before = list(earlier.run())
    film, blocks = model.film(whole, earlier=earlier), list[Block]()
    assert model.cost(lambda: blocks.extend(film.run())) == (3 * STEPS, 5)
    assert all(one is other for one, other in zip(before, blocks, strict=False))
    assert torch.equal(joined(blocks), tiny.film(SHOTS, memory))
    assert earlier.finished == 3 and film.complete


def test_a_joined_plan_goes_on_from_its_first_film(tiny: Tiny) -> None:
    """`BlockPlan.then` gives the plan of the longer film: its cut is a cut of the whole."""
    first, second = tiny.plan("A A"), tiny.plan("B |C")
    model, plan = CountingModel(tiny), first.then(second)
    film = model.film(plan, earlier=model.film(first))
    assert torch.equal(joined(film.run()), tiny.film("", plan=plan))
    assert [block.cut for block in plan.blocks] == [False, False, True, True]


def test_films_drawn_in_one_go_remember_once(tiny: Tiny) -> None:
    """The later film takes over the earlier film's KV cache: no clean pass is run twice."""
    model, beginning = CountingModel(tiny), tiny.plan("A A |B")
    beginning = beginning.then(tiny.plan("B B"))
    whole = beginning.then(tiny.plan("C C"))
    film = model.film(whole, earlier=model.film(beginning))
    blocks: list[Block] = []
    assert model.cost(lambda: blocks.extend(film.run())) == (7 * STEPS, 6)
    assert torch.equal(joined(blocks), tiny.film("", plan=whole))


def test_an_earlier_films_image_begins_the_later_one(tiny: Tiny) -> None:
    """The later film begins with the earlier film's start image, wherever a run was stopped."""
    image = torch.randn(1, 4, 1, 4, 6, generator=torch.Generator().manual_seed(2))
    for at in range(12):
        model, (whole, beginning) = CountingModel(tiny), split(tiny)
        film = model.film(whole, earlier=model.film(beginning, image))
        stop(film, at)
        assert torch.equal(joined(film.run()), tiny.film(SHOTS, prefix=image))


@pytest.mark.slow
@pytest.mark.parametrize("interrupt", [stop, fail, close])
def test_an_earlier_film_is_completed_first(tiny: Tiny, interrupt: Callable[[Film, int], None]) -> None:
    """After a stop in the earlier film or in the later one, the next run samples the rest of both, each block once."""
    for at in range(3 * STEPS):
        model, (whole, beginning) = CountingModel(tiny), split(tiny)
        earlier = model.film(beginning)
        film = model.film(whole, earlier=earlier)
        interrupt(film, at)
        made = max(earlier.finished, film.finished)
        assert film.finished in (0, made) and film.available == made
        sampled, _ = model.cost(lambda film=film: list(film.run()))
        assert sampled == (6 - made) * STEPS
        assert earlier.complete and film.complete
        assert torch.equal(joined(film.run()), tiny.film(SHOTS))


def test_a_stop_at_once_gives_what_the_earlier_film_kept(tiny: Tiny) -> None:
    """Nothing is made of either film, and an incomplete earlier film is not taken for the whole of it."""
    model, (whole, beginning) = CountingModel(tiny), split(tiny)
    earlier = model.film(beginning)
    film = model.film(whole, earlier=earlier)
    close(earlier, 1)
    shown, once = list[Block](), iter([True])
    assert model.cost(lambda: shown.extend(film.run(should_stop=lambda: next(once, False)))) == (0, 0)
    assert [block.index for block in shown] == [0, 1]
    assert film.finished == 2 and not film.complete and not earlier.complete


@pytest.mark.parametrize("kv_format", ["bf16", "fp16", "float32"])
@pytest.mark.parametrize(("blocks", "batch", "guidance"), [(9, 1, 1.0), (2, 1, 1.0), (9, 2, 1.0), (9, 1, 2.0)])
def test_the_bytes_of_a_memory_are_told_beforehand(
    tiny: Tiny, kv_format: str, blocks: int, batch: int, guidance: float
) -> None:
    """`MemoryConfig.bytes` equals the bytes of a film's full pools."""
    memory = tiny.memory(kv_format=kv_format)
    film = tiny.generate(" ".join("A" * blocks), memory, batch=batch, guidance=guidance)
    list(film)
    held = sum(tensor.nbytes for pool in film._cache.tensors() for tensor in pool)
    shape = LatentShape(batch, 4, tiny.block_frames, *tiny.size)
    assert memory.bytes(tiny.model.config, shape, blocks, 1 if guidance == 1.0 else 2) == held


def test_a_film_shorter_than_the_window_keeps_less(tiny: Tiny) -> None:
    """In proportion up to the window, and no more from there; without a length, a window's worth."""
    shape = LatentShape(1, 4, tiny.block_frames, *tiny.size)
    sizes = [tiny.memory().bytes(tiny.model.config, shape, blocks) for blocks in (1, 2, 3, 4, 5, 900)]
    assert [size / sizes[0] for size in sizes] == [1, 2, 3, 4, 4, 4]
    assert tiny.memory().bytes(tiny.model.config, shape) == sizes[3]


def test_the_full_models_memory() -> None:
    """10.38 GB at 704x1280, as the documentation says; a window that is not whole blocks is refused."""
    shape = LatentShape(1, 48, 8, 44, 80)
    assert MemoryConfig().bytes(WAN22_TI2V_5B, shape) / 1e9 == pytest.approx(10.38, abs=0.01)
    with pytest.raises(ValueError, match="not a multiple of the block"):
        MemoryConfig(window=30).bytes(WAN22_TI2V_5B, shape)


def lived(tiny: Tiny, text: str) -> BlockPlan:
    return ShotScript.parse(text).plan(block_frames=tiny.block_frames)


def test_a_film_follows_its_script_from_the_next_shot_on(tiny: Tiny) -> None:
    """A change during shot 1 applies to shot 2, and no clean pass is run twice."""
    text = "Shot 1 (2 blocks): A\nShot 2 (2 blocks): B\nShot 3 (1 block): C @seed=1\n"
    changed = text.replace(": B", ": D").replace("@seed=1", "@seed=2")
    for at in range(2):
        model, script = CountingModel(tiny), ShotScript.parse(text)
        film = model.film(plan := lived(tiny, text), live=LiveScript(script, plan))
        run, blocks = film.run(), list[Block]()
        blocks += [next(run) for _ in range(at + 1)]
        assert film.live is not None and film.live.change(changed) == 1
        blocks += run
        assert torch.equal(joined(blocks), tiny.film("", plan=lived(tiny, changed)))
        assert film.plan.blocks == lived(tiny, changed).blocks == tuple(block.spec for block in blocks)
        assert (model.sampled, model.clean) == (5 * STEPS, 4)


def test_a_later_film_follows_what_an_earlier_one_became(tiny: Tiny) -> None:
    """The script of the earlier film changes while one run makes both films."""
    first, second = "Shot 1 (1 block): A\nShot 2 (1 block): B\n", "Shot 1 (2 blocks): C\n"
    changed = first.replace(": B", ": D")
    plan = lived(tiny, first)
    model = CountingModel(tiny)
    earlier = model.film(plan, live=LiveScript(ShotScript.parse(first), plan))
    film = model.film(plan.then(lived(tiny, second)), earlier=earlier)
    run = film.run()
    blocks = [next(run)]
    assert earlier.live is not None and earlier.live.change(changed) == 1
    blocks += run
    whole = lived(tiny, changed).then(lived(tiny, second))
    assert film.plan.blocks == whole.blocks and torch.equal(joined(blocks), tiny.film("", plan=whole))
