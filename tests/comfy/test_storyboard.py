"""A storyboard in the host: stills before the film, which begins its shots with exactly their blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.script.storyboard import storyboard_blocks
from longlive.longlive_core.take import Take
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from .graphs import FILM, MINI, SAMPLER, Prompt, film, kept_latent, latent, latents, node, plan_of, stream
from .host import Host, Start
from .run import Run
from .test_takes import BLOCKS, sampled, when

pytestmark = pytest.mark.comfy

TIMEOUT_SECONDS = 300
SCRIPT = """hero: a big red ring

Shot 1 (2.67s): {hero} sways on the left in front of a plain forest wall
Shot 2 (2.67s): {hero} circles in the middle against a striped navy wall
Shot 3 (1.33s): {hero} rests on the right against a plain wine wall
"""
BOARD = "30"
WORKFLOW = {"id": "0b7c6c1e-6d8c-4d0e-9a39-0d3f4f3a6b12", "nodes": []}


@pytest.fixture(scope="module")
def studio(start: Start) -> Iterator[Host]:
    """A server whose films keep their takes."""
    with start(keep=True) as host:
        yield host


def board(script: str = SCRIPT, **sampler: Any) -> Prompt:  # noqa: ANN401
    """The storyboard of a film, alone."""
    return {**stream(script, **sampler), BOARD: node("LongLiveStoryboard", stream=[SAMPLER, 0], vae=[MINI, 2])}


def made(host: Host, prompt: Prompt, workflow: dict[str, Any] | None = None) -> Run:
    extra = {} if workflow is None else {"extra_pnginfo": {"workflow": workflow}}
    run = host.run(prompt, TIMEOUT_SECONDS, extra_data=extra)
    assert run.ok, run.error
    return run


def openings(take: Take) -> list[Tensor]:
    """The latents of the first block of every shot."""
    return [load_file(take.path(spec))["latents"].clone() for spec in storyboard_blocks(take.plan)]


def same(one: list[Tensor], other: list[Tensor]) -> list[bool]:
    return [torch.equal(first, second) for first, second in zip(one, other, strict=True)]


def only_take(host: Host) -> Take:
    """The only take of the canvas."""
    (folder,) = (host.base / "output" / "takes" / "auto").glob("*.take")
    return Take.load(folder)


def test_a_film_begins_its_shots_with_the_storyboard_that_was_shown(comfy: Host) -> None:
    """Queued with "only", then with "first" and the same seeds: the same latents to the bit, and a line that counts."""
    only = comfy.run(latent(SCRIPT, storyboard="only"), TIMEOUT_SECONDS)
    assert only.ok, only.error
    assert any(text.startswith("shot 3/3 · block 3/3 · ") for text in only.texts[SAMPLER])
    first = comfy.run(latent(SCRIPT, storyboard="first"), TIMEOUT_SECONDS)
    assert first.ok, first.error
    plan = plan_of(SCRIPT)
    board, film = (latents(comfy, run).split(plan.block_frames, dim=2) for run in (only, first))
    assert (len(board), len(film)) == (3, len(plan.blocks))
    openings = [block.index for block in plan.blocks if plan.begins_shot(block)]
    assert all(torch.equal(one, film[index]) for one, index in zip(board, openings, strict=True))


def test_the_node_shows_a_still_of_every_shot_before_the_film(comfy: Host) -> None:
    """Without a workflow nothing is kept: the STREAM itself begins its shots with the blocks of the stills."""
    stills = made(comfy, board()).outputs[BOARD]["images"]
    pictures = [Image.open(comfy.file(still)) for still in stills]
    assert [picture.size for picture in pictures] == [(128, 128)] * 3
    assert len({picture.tobytes() for picture in pictures}) == 3
    film = made(comfy, {**board(), **kept_latent([BOARD, 0])})
    assert not any(text.startswith("storyboard") for text in film.texts[SAMPLER])  # it was cached
    assert torch.equal(latents(comfy, film), latents(comfy, made(comfy, latent(SCRIPT, storyboard="first"))))


def test_what_has_no_storyboard_is_said(comfy: Host) -> None:
    """A sampler that makes one itself, and a film that is stored already, before anything is sampled."""
    run = comfy.run(board(storyboard="first"), TIMEOUT_SECONDS)
    assert not run.ok and "(node 5) has a storyboard of its own: set its storyboard to off" in str(run.error)
    saved = {**board(), "20": node("LongLiveSaveTake", stream=[SAMPLER, 0], name_prefix="takes/board")}
    saved[BOARD]["inputs"]["stream"] = ["20", 0]
    run = comfy.run(saved, TIMEOUT_SECONDS)
    assert not run.ok and "connect LongLive Storyboard behind LongLive Streaming Sampler" in str(run.error)


def test_a_film_of_the_canvas_begins_with_its_storyboard(studio: Host) -> None:
    """Cancelled and made again, one shot rerolled, then the film: only what is missing is sampled, to the bit."""

    def cancel(_: Run) -> None:
        studio.interrupt()

    stopped = studio.run(board(), TIMEOUT_SECONDS, {"extra_pnginfo": {"workflow": WORKFLOW}}, when(SAMPLER, 6, cancel))
    assert stopped.interrupted
    kept = only_take(studio).block_count()
    assert 1 <= kept < 3
    run = made(studio, board(), WORKFLOW)
    assert sampled(run) == set(BLOCKS[kept:])
    take = only_take(studio)
    first = openings(take)
    assert [shot.versions[0].made for shot in take.shots] == ["preview"] * 3 and take.block_count() == 3
    assert all(Path(take.still(shot, 0)).is_file() for shot in range(3))
    rerolled = SCRIPT.replace("navy wall", "navy wall @seed=9")
    run = made(studio, board(rerolled), WORKFLOW)
    assert sampled(run) == {BLOCKS[1]}
    second = openings(only_take(studio))
    assert same(first, second) == [True, False, True]
    made(studio, film(rerolled), WORKFLOW)
    take = only_take(studio)
    assert take.complete and all(same(openings(take), second))
    made(studio, film(SCRIPT), WORKFLOW)
    assert all(same(openings(only_take(studio)), first)) and only_take(studio).complete


def test_stills_stay_where_shots_are_moved_and_stretched(studio: Host) -> None:
    """Another film takes over the storyboard's blocks of the shots that it has too, wherever they are."""
    count = len(list((studio.base / "output" / "takes" / "auto").glob("*.take")))
    made(studio, board(seed=8), WORKFLOW)
    hero, _, first, second, third = SCRIPT.splitlines()
    moved = "\n".join([hero, first, third.replace("3", "2", 1), second.replace("Shot 2 (2.67s)", "Shot 3 (4s)")])
    run = made(studio, board(moved, seed=8), WORKFLOW)
    assert sampled(run) == set()
    takes = sorted((studio.base / "output" / "takes" / "auto").glob("*.take"))[count:]
    before, after = (openings(Take.load(folder)) for folder in takes)
    assert all(same(after, [before[0], before[2], before[1]]))
    run = made(studio, {**board(moved, seed=8), **{FILM: film(moved)[FILM]}}, WORKFLOW)
    assert all(same(openings(Take.load(takes[1])), after)) and Take.load(takes[1]).complete
