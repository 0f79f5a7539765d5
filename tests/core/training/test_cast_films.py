"""Films of several heroes: what they show, and that a batch of them is what an engine with recalled blocks serves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from longlive.longlive_core.evaluation.probe import read_frame
from longlive.longlive_core.evaluation.scripts import combination, training_combinations
from longlive.longlive_core.memory import FilmKVCache, Window
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.training.captions import COLOURS, caption
from longlive.longlive_core.training.cast_batches import cast_batch, segment_positions, segments
from longlive.longlive_core.training.cast_films import CAST_FILMS, CASTS, cast_film, described
from longlive.longlive_core.training.films import EncodedFilm, heads, shots_of_blocks
from longlive.longlive_core.training.mini_batches import Batch
from longlive.longlive_core.training.teacher_forcing import teacher_forced_flow
from longlive.longlive_core.training.world import BACKGROUNDS, WorldShot, render
from longlive.longlive_core.types import BLOCK_FRAMES, LatentShape
from torch import Tensor

from ..conftest import Tiny
from .toy_mini import random_films

FILMS = [cast_film(0, index)[0] for index in range(40)]
WALLS = set(BACKGROUNDS)


def test_shots_recall_a_hero_a_wall_or_both() -> None:
    """A shot shows what it takes from the recalled shot and a new one of what it does not take."""
    taken: Counter[tuple[bool, bool]] = Counter()
    for film in FILMS:
        for number, shot in enumerate(film.shots):
            if shot.recalls is None:
                continue
            source = film.shots[shot.recalls]
            assert 1 <= shot.recalls < number - 1
            same = film.shown(shot) == film.shown(source), shot.wall == source.wall
            assert any(same) and described(film, number) == (None if same[0] else shot.hero, not same[1])
            assert same[0] or film.shown(shot).shape != film.shown(source).shape
            taken[same] += 1
    assert {(True, False), (False, True), (True, True)} == {*taken}


def test_heroes_differ_in_colour_and_shots_without_a_recall_continue_the_one_before() -> None:
    """Each colour belongs to one hero, and a caption leaves out the hero of the shot before."""
    for film in FILMS:
        shown = [film.shown(shot) for shot in film.shots]
        assert len({hero.colour for hero in shown}) == len({*shown}) > 1
        for number, shot in enumerate(film.shots):
            if shot.recalls is None:
                on = number > 0 and shown[number] == shown[number - 1]
                assert described(film, number) == (None if on else shown[number], True)


def test_they_hold_out_what_films_of_one_hero_hold_out() -> None:
    """All combinations of hero, wall and place are among those of the films of one hero."""
    seen = training_combinations()
    assert all(combination(film.shown(shot), shot) in seen for film in FILMS for shot in film.shots)


def test_pixels_show_the_hero_of_each_shot() -> None:
    """The frame in the middle of each shot shows its hero and its wall."""
    for film in FILMS[:6]:
        start = 0
        for shot in film.shots:
            middle = start + shot.frames // 2
            reading = read_frame(render(film, middle, middle + 1)[0])
            assert reading.hero == film.shown(shot) and reading.background == shot.background
            start += shot.frames


def test_a_caption_without_a_wall_is_the_rest_of_one_with_it() -> None:
    """Neither colour, pattern nor camera is named, and what is left is as with a wall."""
    for index, film in enumerate(FILMS):
        whole, short = (
            caption(film.hero, film.shots[0], np.random.default_rng(index), walled=walled) for walled in (True, False)
        )
        assert whole.startswith(f"{short} ") and not {*short.split()} & WALLS and {*whole.split()} & WALLS


def shown_by(film: EncodedFilm, clean: Tensor) -> WorldShot:
    """The shot of a block, with its hero, by its latents."""
    blocks = film.latents.float().unflatten(1, (-1, BLOCK_FRAMES)).unbind(1)
    shot = film.film.shots[film.shots[next(i for i, block in enumerate(blocks) if torch.equal(block, clean))]]
    return replace(shot, hero=film.film.shown(shot), recalls=None)


def film_of(batch: Batch, row: int) -> EncodedFilm:
    first = batch.clean[row, :, :BLOCK_FRAMES]
    return next(f for f in random_films(30, CAST_FILMS) if torch.equal(f.latents[:, :BLOCK_FRAMES].float(), first))


def test_what_a_caption_leaves_out_is_in_the_block_right_before() -> None:
    """Of all blocks in memory the one nearest in RoPE time shows the target's hero, or wall, wherever it is not named.

    That is the rule that the model can learn: a recalled block stands between the shot before and the one that recalls.
    """
    unnamed = bare = recalled = 0
    for step in range(80):
        batch = cast_batch(random_films(30, CAST_FILMS), 16, np.random.default_rng((3, step)))
        film = film_of(batch, 0)
        blocks = batch.clean[0].unflatten(1, (-1, BLOCK_FRAMES)).unbind(1)
        start = batch.positions[0, ::BLOCK_FRAMES]
        for row in batch.heads[1:]:
            words = {*batch.captions[0][row].split()}
            nearest = max(batch.history[row], key=lambda other: float(start[other]))
            before, own = shown_by(film, blocks[nearest]), shown_by(film, blocks[row])
            if not words & {*COLOURS}:
                assert before.hero == own.hero
                unnamed += 1
            if not words & WALLS:
                assert (before.wall, before.camera) == (own.wall, own.camera)
                bare += 1
            recalled += start[nearest] == start[row] - BLOCK_FRAMES
    assert unnamed > 60 and bare > 15 and recalled > 40


def test_a_recalled_global_sink_is_a_segment_of_its_own() -> None:
    """Its copy stands in front of the shot beside the sink itself, as where films are made."""
    made = segments((0, 1, 2), {2: 0}, Window(4))
    assert [(s.block, s.history, s.before) for s in made[2:]] == [(0, (0,), 2), (2, (2, 0, 1), None)]


def test_batches_depend_on_the_random_generator_alone() -> None:
    """Two calls give the same batch, to the bit, with as many blocks as fit, and the other shapes of its shots."""
    films = random_films(30, CAST_FILMS)
    for step in range(10):
        one, two = (cast_batch(films, 40, np.random.default_rng((5, step))) for _ in range(2))
        assert one.captions == two.captions and one.history == two.history and one.heads == two.heads
        for name in ("clean", "hero", "positions", "others"):
            assert torch.equal(getattr(one, name), getattr(two, name))
        blocks = len(one.history)
        assert len(one.clean) == max(1, 40 // (2 * blocks - 1))
        for row in range(len(one.clean)):
            assert torch.equal(one.others[row], film_of(one, row).others.float())


def served(tiny: Tiny, plan: BlockPlan, clean: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """Flows `[C, F, H, W]` of the blocks of a film at t = 500 behind clean blocks, and their positions, as served."""
    memory = tiny.memory(window=4 * BLOCK_FRAMES, sink=BLOCK_FRAMES, recall_position="before_shot")
    shape = LatentShape(1, 4, BLOCK_FRAMES, *tiny.size)
    cache = FilmKVCache(tiny.model, memory, shape, len(plan.blocks), tiny.text, torch_attention)
    flows, positions = list[Tensor](), list[Tensor]()
    zero = torch.zeros(1, BLOCK_FRAMES)
    for block in plan.blocks:
        if block.index == 0 or block.cut:
            cache.recall(block)
        while cache.window.entering:
            kept = plan.blocks[cache.window.entering[0]]
            at = cache.recalled_positions(kept, kept.shot, block, block.shot)
            ((text, kv),) = cache.recall_calls(kept)
            tiny.model.write_kv(clean[None, :, kept.start : kept.start + BLOCK_FRAMES], zero, text, kv, at)
            cache.entered()
        rows = slice(block.start, block.start + BLOCK_FRAMES)
        positions.append(cache.positions(block, block.shot))
        cache.begin(block)
        ((text, kv),) = cache.calls(block, clean=False)
        flows.append(tiny.model(noisy[None, :, rows], zero + 500, text, kv, positions[-1])[0])
        ((text, kv),) = cache.calls(block, clean=True)
        tiny.model.write_kv(clean[None, :, rows], zero, text, kv, positions[-1])
        cache.end(block)
    return torch.cat(flows, dim=1), torch.stack(positions).float()


def test_flows_are_those_of_the_engine(tiny: Tiny) -> None:
    """In films of all casts, the flow of every block equals that of the engine, which recalls the block by itself."""
    torch.manual_seed(0)
    for lengths, sources in CASTS:
        shots = shots_of_blocks(lengths)
        first = heads(shots)
        recalled = {shot: first[source] for shot, source in enumerate(sources) if source < shot - 1}
        words = " ".join("|" * (block in first[1:]) + f"p{shot}" for block, shot in enumerate(shots))
        plan = replace(tiny, block_frames=BLOCK_FRAMES).plan(words)
        specs = tuple(replace(b, recalled=(recalled[b.shot],) if b.shot in recalled else ()) for b in plan.blocks)
        clean, noisy = torch.randn(2, 4, BLOCK_FRAMES * len(shots), *tiny.size)
        expected, positions = served(tiny, replace(plan, blocks=specs), clean, noisy)
        made = segments(shots, recalled, Window(4))
        frames = [BLOCK_FRAMES * segment.block + frame for segment in made for frame in range(BLOCK_FRAMES)]
        text = torch.stack([tiny.text(f"p{shot}") for shot in range(len(lengths))])
        flow = teacher_forced_flow(
            tiny.model, clean[None, :, frames], noisy[None, None, :, frames], torch.full((1, 1, len(frames)), 500.0),
            text, torch.tensor([[shots[s.block] for s in made]]), segment_positions(positions, made), BLOCK_FRAMES,
            history=[s.history for s in made],
        )[0, 0]  # fmt: skip
        own = torch.cat(
            [flow[:, BLOCK_FRAMES * i :][:, :BLOCK_FRAMES] for i, s in enumerate(made) if s.before is None], 1
        )
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)
