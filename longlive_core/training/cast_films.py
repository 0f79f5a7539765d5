"""Films of several heroes, from which LongLive Mini learns which of the blocks in memory a shot continues.

Each shot introduces a hero, continues that of the shot before, or recalls a block of an earlier shot: its hero, its
wall, or both. All shots are those of films of one hero (`training_film`), so that what these hold out, these films
hold out, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from .films import FilmSet, shot_frames, shots_of_blocks, training_film
from .world import Hero, WorldFilm, WorldShot

# For each film the lengths of its shots in blocks, and for each shot the one whose hero it shows: itself if it
# introduces one, the shot before, or an earlier one that it recalls.
CASTS = (
    ((1, 1, 1), (0, 1, 1)),
    ((1, 2, 2), (0, 1, 1)),
    ((1, 1, 1, 1), (0, 1, 2, 1)),
    ((1, 1, 1, 1), (0, 1, 2, 1)),
    ((2, 1, 1, 1), (0, 1, 2, 1)),
    ((1, 1, 2, 2), (0, 1, 2, 1)),
    ((1, 2, 1, 2), (0, 1, 2, 1)),
    ((1, 1, 1, 1, 1), (0, 1, 1, 3, 1)),
    ((1, 1, 1, 1, 1), (0, 1, 2, 1, 2)),
    ((1, 1, 1, 1, 1), (0, 1, 2, 1, 3)),
    ((1, 1, 1, 1, 1), (0, 1, 2, 3, 1)),
    ((1, 1, 1, 1, 1, 1), (0, 1, 2, 2, 1, 2)),
)
# What a shot takes from the block that it recalls, and the shares: the hero, the wall or both.
TAKEN, TAKEN_SHARES = (("hero",), ("wall",), ("hero", "wall")), (0.5, 0.25, 0.25)
KNOWN_FILMS = 3000  # films of one hero whose shots these films show


def cast_film(seed: int, index: int) -> tuple[WorldFilm, tuple[int, ...]]:
    """Film `index` of several heroes of a seed, and the index of the shot of each of its blocks."""
    rng = np.random.default_rng((seed, 4, index))
    lengths, sources = CASTS[rng.integers(len(CASTS))]
    shots: list[WorldShot] = []
    for number, (frames, source) in enumerate(zip(shot_frames(lengths), sources, strict=True)):
        recalls = source if source < number - 1 else None
        taken = ("hero",) if recalls is None else TAKEN[rng.choice(len(TAKEN), p=TAKEN_SHARES)]
        fitting = [shot for shot in _known_shots(seed) if _fits(shot, shots, source, taken)]
        shot = fitting[rng.integers(len(fitting))]
        camera = shots[source].camera if "wall" in taken else shot.camera
        shots.append(replace(shot, frames=frames, camera=camera, recalls=recalls))
    first = shots[0].hero
    assert first is not None  # every known shot has its hero
    return WorldFilm(first, tuple(shots)), shots_of_blocks(lengths)


CAST_FILMS = FilmSet("casts", cast_film)


def described(film: WorldFilm, number: int) -> tuple[Hero | None, bool]:
    """What the caption of a shot must describe: its hero, or None, and whether also its wall.

    What the shot has in common with the block that it recalls need not be described, nor the hero of the shot before.
    """
    shot, hero = film.shots[number], film.shown(film.shots[number])
    source = film.shots[max(0, number - 1) if shot.recalls is None else shot.recalls]
    known = number > 0 and film.shown(source) == hero
    return None if known else hero, shot.recalls is None or source.wall != shot.wall


@cache
def _known_shots(seed: int) -> tuple[WorldShot, ...]:
    """All shots of the films of one hero, each with its hero."""
    films = (training_film(seed, index)[0] for index in range(KNOWN_FILMS))
    return tuple(replace(shot, hero=film.hero) for film in films for shot in film.shots)


def _fits(shot: WorldShot, before: Sequence[WorldShot], source: int, taken: tuple[str, ...]) -> bool:
    """Whether a shot can follow those before it: it shows what it takes from its source, and nothing else of it.

    A new hero has a colour that no one had before, and another shape than its source and the shot before.
    """
    known = source < len(before)
    near = [*before[-1:], *before[source : source + 1]]
    if known and "wall" in taken:
        if shot.wall != before[source].wall:
            return False
    elif any(shot.background == other.background for other in near):
        return False
    if known and "hero" in taken:
        return shot.hero == before[source].hero
    hero = shot.hero
    return hero is not None and not (
        any(other.hero is not None and hero.colour == other.hero.colour for other in before)
        or any(other.hero is not None and hero.shape == other.hero.shape for other in near)
    )
