"""Held-out scripts in the vocabulary of the synthetic films, each with the film that it asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from ..script import BlockPlan, ShotScript
from ..training.captions import caption
from ..training.world import WorldFilm, WorldShot, sample_hero, sample_shot
from ..types import BLOCK_FRAMES, video_frames

# Part of the seeds of held-out scripts. Seeds of training films are small numbers, so that no film is in both sets.
HELD_OUT: Final = 7_220_260_117
MINUTE_BLOCKS: Final = 45
SHORT_SHOTS: Final = ((2, 2), (2, 2, 2), (3, 2), (2, 3))


@dataclass(frozen=True)
class Case:
    """A script and the film that it asks for. Shot 1 describes the hero; later shots do not.

    captions, blocks: caption and length in blocks of each shot. seed: of the noise.
    """

    film: WorldFilm
    captions: tuple[str, ...]
    blocks: tuple[int, ...]
    seed: int

    @property
    def script(self) -> str:
        """The text of the script."""
        shots = zip(self.captions, self.blocks, strict=True)
        return "\n".join(f"Shot {i} ({blocks} blocks): {text}" for i, (text, blocks) in enumerate(shots, 1))

    def plan(self) -> BlockPlan:
        """The block plan of the script. Raises ValueError if its lengths are not those of `film`."""
        plan = ShotScript.parse(self.script).plan()
        planned = tuple(sum(block.shot == shot for block in plan.blocks) for shot in range(plan.shots))
        if planned != self.blocks or plan.video_frames != self.film.frames:
            raise ValueError(f"the script plans shots of {planned} blocks, but the film has shots of {self.blocks}")
        return plan

    def alone(self, shot: int) -> Case:
        """One shot as a separate film with other noise, so that nothing of the other shots can influence it."""
        frames = video_frames(self.blocks[shot] * BLOCK_FRAMES)
        film = WorldFilm(self.film.hero, (replace(self.film.shots[shot], frames=frames),))
        return Case(film, (self.captions[shot],), (self.blocks[shot],), self.seed + 1_000_000 * (shot + 1))


def short_cases(count: int, seed: int = 0) -> tuple[Case, ...]:
    """The first `count` scripts of two or three shots, 4 to 6 blocks long. `seed` changes the noise only."""
    return tuple(_case((HELD_OUT, 2, i), SHORT_SHOTS[i % len(SHORT_SHOTS)], seed + i) for i in range(count))


def minute_cases(count: int, seed: int = 0) -> tuple[Case, ...]:
    """The first `count` scripts of one minute, with shots of 4 to 7 blocks. `seed` changes the noise only."""
    keys = [(HELD_OUT, 60, i) for i in range(count)]
    return tuple(_case(key, _minute_shots(key), seed + 500_000 + i) for i, key in enumerate(keys))


def _case(key: tuple[int, ...], blocks: tuple[int, ...], noise_seed: int) -> Case:
    rng = np.random.default_rng((*key, 1))
    hero = sample_hero(rng)
    shots: list[WorldShot] = []
    start = 0
    for count in blocks:
        stop = start + count * BLOCK_FRAMES
        shots.append(_next_shot(rng, shots, video_frames(stop) - video_frames(start)))
        start = stop
    captions = tuple(caption(hero if i == 0 else None, shot, rng) for i, shot in enumerate(shots))
    return Case(WorldFilm(hero, tuple(shots)), captions, blocks, noise_seed)


def _next_shot(rng: np.random.Generator, shots: list[WorldShot], frames: int) -> WorldShot:
    """A random shot whose background differs from the last shot's, so that every cut is visible."""
    while True:
        shot = sample_shot(rng, frames)
        if not shots or shot.background != shots[-1].background:
            return shot


def _minute_shots(key: tuple[int, ...]) -> tuple[int, ...]:
    """Random shot lengths in blocks that add up to a minute, each of 4 to 7 blocks."""
    rng = np.random.default_rng((*key, 2))
    shots: list[int] = []
    while (left := MINUTE_BLOCKS - sum(shots)) > 7:
        shots.append(int(rng.integers(4, min(7, left - 4) + 1)))
    return (*shots, left)
