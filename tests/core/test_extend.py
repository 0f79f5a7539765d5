"""A video from elsewhere becomes a film: its last whole blocks, at the film's size, none of them sampled."""

from __future__ import annotations

from decimal import Decimal

import pytest
import torch
from longlive.longlive_core.extend import encode_clip, fitted, plan_clip, whole_blocks
from longlive.longlive_core.film import Film
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.script import Length, ScriptError, plan_shot
from longlive.longlive_core.types import LatentShape


@pytest.mark.parametrize(("frames", "blocks", "surplus"), [(29, 1, 0), (30, 1, 1), (60, 1, 31), (61, 2, 0)])
def test_whole_blocks_remain(frames: int, blocks: int, surplus: int) -> None:
    """32k - 3 frames remain, and never is a block given away."""
    assert whole_blocks(frames) == (blocks, surplus)
    assert frames == 32 * blocks - 3 + surplus


def test_a_clip_below_a_block_is_refused() -> None:
    """The error names what there is, what is needed, and what else can be done."""
    with pytest.raises(ValueError, match=r"28 frames.*29 frames at least.*start image"):
        whole_blocks(28)


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (50, 90), (200, 120), (64, 64)])
def test_a_clip_is_covered_and_cropped_to_its_middle(size: tuple[int, int]) -> None:
    """Any size comes out as the film's: a disc in the middle stays there and stays round."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    disc = ((y - height / 2) ** 2 + (x - width / 2) ** 2).sqrt() < min(size) / 4
    frames = (disc * 255).to(torch.uint8)[None, :, :, None].expand(2, -1, -1, 3)
    out = fitted(frames, 64, 64)
    assert out.shape == (2, 3, 64, 64) and out.dtype == torch.float32
    scale = max(64 / height, 64 / width)
    assert float(out[0, 0].sum()) == pytest.approx(float(disc.sum()) * scale**2, rel=0.05)
    columns = out[0, 0].sum(0)
    assert float((columns * (torch.arange(64) + 0.5)).sum() / columns.sum()) == pytest.approx(32, abs=0.6)
    assert torch.equal(fitted(frames.float() / 255, 64, 64), out)


def test_the_clips_end_is_encoded_as_a_whole() -> None:
    """Piece by piece comes what the VAE gives of the last whole blocks at once, told piece by piece."""
    vae = load_mini().vae
    frames = torch.rand(31, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    told: list[None] = []
    with torch.no_grad():
        latents = encode_clip(frames, vae, LatentShape(1, 48, 8, 2, 2), lambda: told.append(None))
        whole = vae.normalise(vae.encode(frames[2:].movedim(-1, 0)[None] * 2 - 1))
    assert latents.shape == (1, 48, 8, 2, 2) and len(told) == 8
    assert torch.equal(latents, whole)


def test_a_clip_is_a_finished_film() -> None:
    """Its blocks are the clip's latents, drawn without a model, under one prompt."""
    latents = torch.randn(1, 48, 16, 2, 2, generator=torch.Generator().manual_seed(2))
    film = Film.known(plan_clip(2, "a fox\n  in the snow", 30.0), latents)
    assert (film.complete, film.needs_model, film.kept, film.plan.fps) == (True, False, 2, 30.0)
    assert torch.equal(torch.cat([block.latents for block in film.draw()], dim=2), latents)
    assert {block.prompt for block in film.plan.blocks} == {"a fox in the snow"}
    with pytest.raises(ValueError, match="12 latent frames"):
        Film.known(film.plan, latents[:, :, :12])


def test_a_shot_of_its_own_is_planned_as_a_script_of_one() -> None:
    """Length, seed and style do what they do in a script; signs in the prompt mean nothing."""
    plan = plan_shot("a {fox} | @seed=3", Length(Decimal("4"), "s"), 7, "oil painting")
    assert len(plan.blocks) == 3
    assert {(block.prompt, block.seed) for block in plan.blocks} == {("a {fox} | @seed=3, oil painting", 7)}
    with pytest.raises(ValueError, match="prompt is empty"):
        plan_shot(" \n", Length(Decimal("4"), "s"))
    with pytest.raises(ValueError, match="limit is 10000"):
        plan_shot("x" * 10_001, Length(Decimal("4"), "s"))
    with pytest.raises(ScriptError, match="shortest shot is one block"):
        plan_shot("a fox", Length(Decimal("0.1"), "s"))


def test_a_film_goes_on_without_a_cut_where_it_is_asked_to() -> None:
    """`then` announces a cut; without one the scene goes on as a shot of its own under its plain prompt."""
    first, second = (plan_shot(prompt, Length(Decimal(1), "blocks")) for prompt in ("a fox", "a hare"))
    with_cut, without = first.then(second).blocks[-1], first.then(second, cut=False).blocks[-1]
    assert (with_cut.cut, with_cut.prompt, with_cut.shot) == (True, "The scene transitions. a hare", 1)
    assert (without.cut, without.prompt, without.shot) == (False, "a hare", 1)
