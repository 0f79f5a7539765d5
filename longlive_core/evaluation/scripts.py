"""Held-out scripts in the vocabulary of the synthetic films, each with the film that it asks for.

Held out is a shot whose combination of hero (shape, colour, size), background, pattern and place is in none of the
first `TRAINING_FILMS` films of the training generator. There are 5,760 combinations. Without the place there are only
1,152, and the training films show nearly all of them. The seeds of these scripts have another first part than those of
training films, and shapes take turns, so that any four scripts in a row show all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np

from ..script import BlockPlan, ShotScript
from ..training.captions import caption
from ..training.films import training_film
from ..training.world import SHAPES, Hero, WorldFilm, WorldShot, sample_hero, sample_shot
from ..types import BLOCK_FRAMES, video_frames
from .windows import KINDS, Kind, Window, plan_windows

# First part of the seeds of held-out scripts. Those of training films are small numbers.
HELD_OUT: Final = 7_220_260_117
TRAINING_FILMS: Final = 3000
TRAINING_SEED: Final = 0

Group = Literal["short", "minute", "gap", "shot", "long"]
GROUPS: Final[tuple[Group, ...]] = get_args(Group)
SHORT_SHOTS: Final = ((2, 2), (2, 2, 2), (3, 2), (2, 3))
# Numbers of shots since the hero was described, at which recall is measured.
GAPS: Final = (1, 2, 4, 8, 16, 30)
MINUTE_BLOCKS: Final = 45
LONG_BLOCKS: Final = 10 * MINUTE_BLOCKS
SHOT_BLOCKS: Final = 30

Combination = tuple[Hero, str, str, str]


@dataclass(frozen=True)
class Case:
    """A script and the film that it asks for. Shot 1 describes the hero; later shots do not.

    captions, blocks: caption and length in blocks of each shot. seed: of the noise.
    """

    group: Group
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

    def windows(self) -> tuple[Window, ...]:
        """Where the film is looked at: at all kinds of places, in long films at every third or sixth block only."""
        every, kinds = _LOOKS[self.group]
        shots = range(len(self.blocks)) if self.group != "gap" else (0, *GAPS)
        return tuple(window for window in plan_windows(self.plan(), every, kinds) if window.shot in shots)

    def alone(self, shot: int) -> Case:
        """One shot as a separate film with other noise, so that nothing of the other shots can influence it."""
        frames = video_frames(self.blocks[shot] * BLOCK_FRAMES)
        film = WorldFilm(self.film.hero, (replace(self.film.shots[shot], frames=frames),))
        return Case(self.group, film, (self.captions[shot],), (self.blocks[shot],), self.seed + 10_000_000 * (shot + 1))


_SEAM_AND_MIDDLE: Final[tuple[Kind, ...]] = ("seam", "middle")
_LOOKS: Final[dict[Group, tuple[int, tuple[Kind, ...]]]] = {
    "short": (1, KINDS),
    "minute": (3, _SEAM_AND_MIDDLE),
    "gap": (1, ("head", "middle", "end")),
    "shot": (1, _SEAM_AND_MIDDLE),
    "long": (6, _SEAM_AND_MIDDLE),
}


def make_cases(films: int, seed: int = 0) -> tuple[Case, ...]:
    """The held-out scripts of an evaluation of `films` short films, group by group.

    short: `films` films of two or three shots. minute, gap: a quarter as many films of one minute, and of 31 shots of
    one block. shot: an eighth as many films of one shot of 30 blocks. long: a sixteenth as many films of ten minutes.
    All groups have one film or more. The first scripts do not depend on `films`; `seed` changes the noise only.
    """
    seen = training_combinations()
    counts: dict[Group, int] = {"short": films, "minute": films // 4, "gap": films // 4, "shot": films // 8}
    counts["long"] = films // 16
    return tuple(make_case(group, i, seed, seen) for group in GROUPS for i in range(max(1, counts[group])))


def choose_groups(names: Iterable[str]) -> tuple[Group, ...]:
    """The groups of these names. Raises ValueError for an unknown name."""
    names = tuple(names)
    if unknown := sorted(set(names) - set(GROUPS)):
        raise ValueError(f"there is no group '{unknown[0]}' of films; the groups are {', '.join(GROUPS)}")
    return tuple(group for group in GROUPS if group in names)


def make_case(group: Group, index: int, seed: int = 0, seen: Set[Combination] = frozenset()) -> Case:
    """Script `index` of a group, none of whose shots shows a combination in `seen`. seed: added to the noise's."""
    key = (HELD_OUT, GROUPS.index(group), index)
    rng = np.random.default_rng((*key, 1))
    hero = replace(sample_hero(rng), shape=SHAPES[index % len(SHAPES)])
    blocks = _shot_blocks(group, index, np.random.default_rng((*key, 2)))
    shots: list[WorldShot] = []
    start = 0
    for count in blocks:
        stop = start + count * BLOCK_FRAMES
        frames = video_frames(stop) - video_frames(start)
        shots.append(_held_out_shot(rng, hero, shots, frames, seen))
        start = stop
    captions = tuple(caption(hero if i == 0 else None, shot, rng) for i, shot in enumerate(shots))
    return Case(group, WorldFilm(hero, tuple(shots)), captions, blocks, seed + 500_000 * GROUPS.index(group) + index)


def _held_out_shot(
    rng: np.random.Generator, hero: Hero, before: Sequence[WorldShot], frames: int, seen: Set[Combination]
) -> WorldShot:
    """A random held-out shot whose background differs from that of the shot before, so that every cut is visible."""
    while True:
        shot = sample_shot(rng, frames)
        if combination(hero, shot) not in seen and (not before or shot.background != before[-1].background):
            return shot


def combination(hero: Hero, shot: WorldShot) -> Combination:
    """What decides whether a shot is held out."""
    return hero, shot.background, shot.pattern, shot.place


def training_combinations(films: int = TRAINING_FILMS, seed: int = TRAINING_SEED) -> frozenset[Combination]:
    """The combinations of all shots of the first `films` training films of a seed."""
    made = (training_film(seed, index)[0] for index in range(films))
    return frozenset(combination(film.hero, shot) for film in made for shot in film.shots)


def _shot_blocks(group: Group, index: int, rng: np.random.Generator) -> tuple[int, ...]:
    if group == "short":
        return SHORT_SHOTS[index // len(SHAPES) % len(SHORT_SHOTS)]
    if group == "gap":
        return (1,) * (GAPS[-1] + 1)
    if group == "shot":
        return (SHOT_BLOCKS,)
    total = MINUTE_BLOCKS if group == "minute" else LONG_BLOCKS
    shots: list[int] = []
    while (left := total - sum(shots)) > 7:  # shots of 4 to 7 blocks
        shots.append(int(rng.integers(4, min(7, left - 4) + 1)))
    return (*shots, left)
