"""Blocks of cast files in sampling: the K/V that enter, the first shot, snapshots, batches, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.film.sampler_settings import SamplerSettings
from longlive.longlive_core.sampling import Snapshot, batch_noise, block_noise
from longlive.longlive_core.script.from_plan import script_of
from longlive.longlive_core.types import Block, BlockSpec
from torch import Tensor

from ..conftest import Tiny
from .test_recall import MEMORIES, SHOTS, joined, recalling, slot_of, tiny

__all__ = ["tiny"]


def card(prompt: str, latents: Tensor, number: int = 1) -> Block:
    return Block(BlockSpec(-number, -number, prompt, False, None, 0, latents.shape[2]), latents)


def some(seed: int = 5, number: int = 1) -> Block:
    return card("K", torch.randn(1, 4, 2, 4, 6, generator=torch.Generator().manual_seed(seed)), number)


@pytest.mark.parametrize("kv_format", ["float32", "fp8", "nvfp4", "q2"])
def test_a_cast_block_is_a_recalled_block_of_the_same_latents(tiny: Tiny, kv_format: str) -> None:
    """Recalled before the shot, the film with a block of its own and that with the block from a file are the same."""
    memory = tiny.memory(kv_format=kv_format, recall_position="before_shot")
    film = tiny.film("", memory, plan=recalling(tiny.plan(SHOTS), {3: (2,)}))
    latents, prompt = film[:, :, 4:6], tiny.plan(SHOTS).blocks[2].prompt
    cast = [card(prompt, latents)]
    again = tiny.film("", memory, plan=recalling(tiny.plan(SHOTS), {3: (-1,)}), cast=cast)
    assert torch.equal(film, again)
    # It has no position in the film: it is before the shot with that setting, too.
    original = tiny.memory(kv_format=kv_format)
    assert torch.equal(tiny.film("", original, plan=recalling(tiny.plan(SHOTS), {3: (-1,)}), cast=cast), film)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("at", [0, 1, 3, 4, 6])
def test_the_first_shot_recalls_and_a_snapshot_goes_on_alike(
    tiny: Tiny, tmp_path: Path, memory: dict[str, Any], at: int
) -> None:
    """With one block or two, in shots that follow each other and later; a snapshot needs no `known` for them."""
    plan, settings = recalling(tiny.plan(SHOTS), {0: (-2,), 1: (-1,), 3: (-2,)}), tiny.memory(**memory)
    cast = [some(5), some(6, 2)]
    film = tiny.generate("", settings, plan=plan, cast=cast)
    blocks = [next(film) for _ in range(at)]
    film.snapshot().save(tmp_path / "state")
    rest = joined(film)
    again = tiny.generate("", settings, plan=plan, cast=cast, resume=Snapshot.load(tmp_path / "state"))
    assert torch.equal(joined(again), rest)
    plain = tiny.film("", settings, plan=tiny.plan(SHOTS))
    assert all(not torch.equal(block.latents, plain[:, :, 2 * i : 2 * i + 2]) for i, block in enumerate(blocks[:2]))


def test_it_stands_in_front_of_the_first_shot_and_sees_nothing_else(tiny: Tiny) -> None:
    """Frames -2 and -1; the K/V are those of a film that has begun with these latents at these positions."""
    film = tiny.generate("", plan=recalling(tiny.plan(SHOTS), {0: (-1,)}), cast=[some()])
    next(film)
    spec, cache = some().spec, film._cache
    assert cache.recalled_positions(spec, 0, film.plan.blocks[0], 0).tolist() == [-2.0, -1.0]
    assert cache.window.blocks == (-1, 0)
    entered = slot_of(film, -1)
    other = tiny.generate("", plan=recalling(tiny.plan("K K |K"), {0: (-1,)}), cast=[some()])
    next(other)
    assert all(torch.equal(a, b) for a, b in zip(entered, slot_of(other, -1), strict=True))


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_a_cast_that_no_shot_recalls_changes_nothing(tiny: Tiny, memory: dict[str, Any]) -> None:
    """Nor does one that was recalled, once other shots have come."""
    plain = tiny.film("", tiny.memory(**memory), plan=tiny.plan(SHOTS))
    assert torch.equal(tiny.film("", tiny.memory(**memory), plan=tiny.plan(SHOTS), cast=[some()]), plain)
    film = tiny.generate("", tiny.memory(**memory), plan=recalling(tiny.plan(SHOTS), {0: (-1,)}), cast=[some()])
    for _ in range(4):
        next(film)
    assert -1 not in film._cache.window.blocks and film._cache.window.blocks[0] == 0


def test_a_short_film_has_slots_for_them(tiny: Tiny) -> None:
    """Films shorter than the window have fewer slots: one for each of their blocks and of their cast."""
    film = tiny.film(
        "", tiny.memory(window=20), plan=recalling(tiny.plan("A B"), {0: (-1, -2)}), cast=[some(), some(6, 2)]
    )
    assert bool(torch.isfinite(film).all())


def test_each_film_of_a_batch_recalls_it(tiny: Tiny) -> None:
    """Each film of a batch is the one that its seed makes alone."""
    plan, cast = recalling(tiny.plan(SHOTS), {0: (-1,), 3: (-1,)}), [some()]
    noise = batch_noise([(block_noise(seed), plan.blocks) for seed in (3, 4)])
    films = tiny.film("", plan=plan, cast=cast, batch=2, noise=noise)
    for row, seed in enumerate((3, 4)):
        torch.testing.assert_close(films[row : row + 1], tiny.film("", plan=plan, cast=cast, seed=seed))


def test_what_cannot_be_recalled_is_refused_before_any_work(tiny: Tiny) -> None:
    """A file that is not loaded, latents of another size, blocks in another order, more than fit, independent shots."""
    plan = recalling(tiny.plan(SHOTS), {0: (-2,)})
    with pytest.raises(ValueError, match="shot 1 recalls cast file 2, but 1 of the film's cast files is loaded"):
        tiny.generate("", plan=plan, cast=[some()])
    with pytest.raises(ValueError, match=r"cast file 2 has block -2 and latents of \(1, 4, 2, 4, 8\)"):
        tiny.generate("", plan=plan, cast=[some(), card("K", torch.zeros(1, 4, 2, 4, 8), 2)])
    with pytest.raises(ValueError, match="cast file 1 has block -2"):
        tiny.generate("", plan=plan, cast=[some(6, 2), some()])
    with pytest.raises(ValueError, match="shot 1 recalls 2 blocks, but 1 fits"):
        tiny.generate("", plan=recalling(tiny.plan(SHOTS), {0: (-1, -2)}), cast=[some(), some(6, 2)])
    with pytest.raises(ValueError, match="independent shots"):
        tiny.generate("", tiny.memory(independent_shots=True), plan=plan, cast=[some(), some(6, 2)])


def test_a_film_may_be_shorter_than_its_cast(tiny: Tiny) -> None:
    """A film of one block recalls the second of two cast files."""
    plan = recalling(tiny.plan("A"), {0: (-2,)})
    film = tiny.film("", tiny.memory(), plan=plan, cast=[some(5), some(6, 2)])
    alone = tiny.film("", tiny.memory(), plan=recalling(tiny.plan("A"), {0: (-1,)}), cast=[some(6)])
    assert torch.equal(film, alone)


def test_a_cast_file_that_is_not_loaded_is_refused_with_the_plan(tiny: Tiny) -> None:
    """Settings refuse the plan before a film begins, or follows a live script; such a plan is no script either."""
    plan = recalling(tiny.plan(SHOTS), {3: (-2,)})
    settings = SamplerSettings(tiny.size, tiny.memory(), cast=[some()])
    with pytest.raises(ValueError, match="recalls cast file 2, but 1 of the film's cast files is loaded"):
        settings.check_plan(plan)
    settings.check_plan(recalling(tiny.plan(SHOTS), {3: (-1,)}))
    with pytest.raises(ValueError, match="the film recalls cast files that its blocks do not name"):
        script_of(plan)
