"""Recalled blocks in sampling: the K/V that enter, films without them, interrupts, snapshots, batches and formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.memory.window import copy_of
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.oom import OutOfMemoryError
from longlive.longlive_core.sampling import Generation, Snapshot, batch_noise, block_noise
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.types import Block
from torch import Tensor

from ..conftest import Tiny

SHOTS = "A B |C C |D D |E E |F"
LONG = "A B |C C |D D |E E E |F F"
MEMORIES: list[dict[str, Any]] = [
    {},
    {"recall_position": "original"},
    {"relative_rope": True},
    {"shot_clean_recache": True},
    {"kv_format": "fp8"},
    {"kv_format": "nvfp4"},
    {"kv_format": "q2"},
]


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    """Its heads are wide enough for quantised K/V, and it predicts a flow."""
    torch.manual_seed(0)
    config = WanConfig(dim=64, ffn_dim=96, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4)
    model = CausalWan(config).requires_grad_(False)
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    return Tiny(model)


def recalling(plan: BlockPlan, recalls: dict[int, tuple[int, ...]]) -> BlockPlan:
    """The plan whose shots, by number, recall blocks."""
    return replace(plan, blocks=tuple(replace(b, recalled=recalls.get(b.shot, ())) for b in plan.blocks))


def joined(blocks: Iterator[Block]) -> Tensor:
    return torch.cat([block.latents for block in blocks], dim=2)


def slot_of(generation: Generation, block: int) -> list[Tensor]:
    """Everything that the KV cache stores for a block."""
    cache = generation._cache
    slot, slots = cache.window.blocks.index(block), len(cache.window.blocks)
    stored = [t for pool in cache._pools for t in pool.tensors(slots)]
    return [t.reshape(t.shape[0], slots, -1)[:, slot].clone() for t in stored if t.numel()]


@pytest.mark.parametrize("kv_format", ["float32", "fp8", "nvfp4", "q2"])
def test_the_pass_writes_what_the_blocks_own_pass_wrote(tiny: Tiny, kv_format: str) -> None:
    """Blocks 1 and 2 attended the global sink and themselves: recalled much later they have the same K/V to the bit."""
    plan = recalling(tiny.plan(LONG), {4: (1, 2)})
    memory = tiny.memory(window=10, shot_clean_recache=True, kv_format=kv_format, recall_position="original")
    film = tiny.generate("", memory, plan=plan)
    own: dict[int, list[Tensor]] = {}
    for index in range(9):
        next(film)
        film.finish_clean_pass()
        own[index] = slot_of(film, index)
    assert not {1, 2} & {*film._cache.window.blocks}
    next(film)
    for index in (1, 2):
        assert all(
            torch.equal(a.view(torch.uint8), b.view(torch.uint8))
            for a, b in zip(slot_of(film, index), own[index], strict=True)
        )


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_only_the_shot_that_recalls_and_later_ones_change(tiny: Tiny, memory: dict[str, Any]) -> None:
    """Blocks before it are those of the film without it, to the bit; its first block is another one."""
    settings = tiny.memory(**memory)
    plain = tiny.film("", settings, plan=tiny.plan(SHOTS))
    film = tiny.film("", settings, plan=recalling(tiny.plan(SHOTS), {3: (2,)}))
    at = 6 * tiny.block_frames
    assert torch.equal(film[:, :, :at], plain[:, :, :at])
    assert not torch.equal(film[:, :, at : at + 2], plain[:, :, at : at + 2])


def test_positions_differ(tiny: Tiny) -> None:
    """The position of a recalled block changes the film, by default it is in front of the shot."""
    plan = recalling(tiny.plan(SHOTS), {3: (2,)})
    default, original, before = (
        tiny.film("", tiny.memory(**change), plan=plan)
        for change in ({}, {"recall_position": "original"}, {"recall_position": "before_shot"})
    )
    assert torch.equal(default, before) and not torch.equal(original, before)


def test_before_the_shot_is_the_gap_that_the_cut_leaves(tiny: Tiny) -> None:
    """The frames in front of the shot's first one, with as many cuts; two blocks are in the order of their names."""
    memory = tiny.memory(window=12, recall_position="before_shot")
    plan = recalling(tiny.plan(SHOTS), {3: (4, 2)})
    film = tiny.generate("", memory, plan=plan)
    for _ in range(7):
        next(film)
    at, cache = plan.blocks[6], film._cache
    own = memory.position(at.start, 3)
    got = [cache.recalled_positions(plan.blocks[index], 0, at, 3).tolist() for index in (4, 2)]
    assert got == [[own - 4, own - 3], [own - 2, own - 1]]


@pytest.mark.parametrize("kv_format", ["float32", "nvfp4"])
def test_a_recalled_global_sink_is_in_both_places(tiny: Tiny, tmp_path: Path, kv_format: str) -> None:
    """Its copy stands in front of the shot and leaves with it. Where blocks keep their positions, nothing changes."""
    plan, memory = recalling(tiny.plan(SHOTS), {3: (0,)}), tiny.memory(kv_format=kv_format)
    plain = tiny.film("", memory, plan=tiny.plan(SHOTS))
    film = tiny.generate("", memory, plan=plan)
    blocks = [next(film) for _ in range(6)]
    film.finish_clean_pass()
    own = slot_of(film, 0)
    blocks.append(next(film))
    assert {0, copy_of(0)} <= {*film._cache.window.blocks}
    assert all(
        torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(slot_of(film, 0), own, strict=True)
    )
    assert not all(torch.equal(a, b) for a, b in zip(slot_of(film, copy_of(0)), own, strict=True))
    film.snapshot().save(tmp_path / "state")
    rest = list(film)
    assert copy_of(0) not in film._cache.window.blocks
    again = tiny.generate("", memory, plan=plan, resume=Snapshot.load(tmp_path / "state"))
    assert torch.equal(joined(again), joined(iter(rest)))
    assert not torch.equal(blocks[6].latents, plain[:, :, 12:14])
    assert torch.equal(tiny.film("", replace(memory, recall_position="original"), plan=plan), plain)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_an_interrupted_entrance_is_taken_up(tiny: Tiny, memory: dict[str, Any]) -> None:
    """If the device runs out of memory in a recalled block's pass, the next call goes on, and the film is the same."""
    plan = recalling(tiny.plan(LONG), {4: (1, 2)})
    settings = tiny.memory(window=10, **memory)
    whole = tiny.film("", settings, plan=plan)
    film = tiny.generate("", settings, plan=plan)
    blocks = [next(film) for _ in range(9)]
    film.finish_clean_pass()
    write, calls = film._write_recalled, iter(range(100))

    def fails(*arguments: Any) -> None:  # noqa: ANN401
        write(*arguments)
        if 1 <= next(calls) <= 2:  # both attempts at the second block, once its K/V are written
            raise MemoryError

    film._write_recalled = fails  # type: ignore[method-assign]
    with pytest.raises(OutOfMemoryError, match="clean pass of block 2, which shot 5 recalls"):
        next(film)
    blocks += film
    assert torch.equal(joined(iter(blocks)), whole)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
@pytest.mark.parametrize("at", [5, 6, 7])
def test_a_snapshot_goes_on_alike(tiny: Tiny, tmp_path: Path, memory: dict[str, Any], at: int) -> None:
    """Before, in and behind the shot that recalls, from a file; latents that are not sampled here come from `known`."""
    plan, settings = recalling(tiny.plan(SHOTS), {3: (2,)}), tiny.memory(**memory)
    film = tiny.generate("", settings, plan=plan)
    blocks = [next(film) for _ in range(at)]
    film.snapshot().save(tmp_path / "state")
    rest = list(film)

    def known(spec: Any) -> Tensor | None:  # noqa: ANN401
        return blocks[spec.index].latents if spec.index < at else None

    again = tiny.generate("", settings, plan=plan, resume=Snapshot.load(tmp_path / "state"), known=known)
    assert torch.equal(joined(again), joined(iter(rest)))


def test_without_its_latents_a_block_cannot_enter(tiny: Tiny) -> None:
    """A snapshot has K/V only: the error names the shot and the block."""
    plan = recalling(tiny.plan(SHOTS), {3: (2,)})
    film = tiny.generate("", plan=plan)
    for _ in range(5):
        next(film)
    again = tiny.generate("", plan=plan, resume=film.snapshot())
    next(again)
    with pytest.raises(ValueError, match="shot 4 recalls block 2, whose latents are neither known nor sampled"):
        next(again)


def test_a_snapshot_of_another_position_is_refused(tiny: Tiny) -> None:
    """Snapshots of the original position say nothing of it, as those of versions that knew no other."""
    plan = recalling(tiny.plan(SHOTS), {3: (2,)})
    films = [tiny.generate("", tiny.memory(recall_position=p), plan=plan) for p in ("original", "before_shot")]
    first, second = (film.snapshot() for film in films)
    assert "recall" not in str(dict(first.kind)) and "recall_position=before_shot" in second.kind["memory"]
    with pytest.raises(ValueError, match="recall_position"):
        films[0].restore(second)


@pytest.mark.parametrize("memory", MEMORIES, ids=str)
def test_a_batch_recalls_in_each_film_its_own_block(tiny: Tiny, memory: dict[str, Any]) -> None:
    """Each film of a batch is the one that its seed makes alone."""
    plan, settings = recalling(tiny.plan(SHOTS), {3: (2,)}), tiny.memory(**memory)
    noise = batch_noise([(block_noise(seed), plan.blocks) for seed in (3, 4)])
    films = tiny.film("", settings, plan=plan, batch=2, noise=noise)
    for row, seed in enumerate((3, 4)):
        torch.testing.assert_close(films[row : row + 1], tiny.film("", settings, plan=plan, seed=seed))


def test_guidance_has_recalled_blocks_in_both_branches(tiny: Tiny) -> None:
    """With two branches the recalled block changes the film, and a snapshot within its shot continues it."""
    plan, options = recalling(tiny.plan(SHOTS), {3: (2,)}), {"guidance": 3.0, "negative": "Z"}
    film = tiny.generate("", plan=plan, **options)
    blocks = [next(film) for _ in range(7)]
    again = tiny.generate("", plan=plan, resume=film.snapshot(), **options)
    assert torch.equal(joined(again), joined(film))
    plain = tiny.film("", plan=tiny.plan(SHOTS), **options)
    assert not torch.equal(blocks[6].latents, plain[:, :, 12:14])


def test_what_cannot_be_recalled_is_refused_before_any_work(tiny: Tiny) -> None:
    """Too many blocks for the window, and blocks that are not before their shot."""
    with pytest.raises(ValueError, match="shot 4 recalls 2 blocks, but 1 fits"):
        tiny.generate("", plan=recalling(tiny.plan(SHOTS), {3: (2, 4)}))
    with pytest.raises(ValueError, match="block 6 of the plan recalls block 6, which is not before it"):
        tiny.generate("", plan=recalling(tiny.plan(SHOTS), {3: (6,)}))
