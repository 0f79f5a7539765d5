"""Captions of synthetic films, sampled from a small grammar with synonyms."""

from __future__ import annotations

from typing import Final

import numpy as np

from .world import BACKGROUNDS, COLOURS, Hero, WorldShot

SIZE_WORDS: Final = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
SHAPE_WORDS: Final = {
    "circle": ("circle", "ball", "disc"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid", "wedge"),
    "ring": ("ring", "hoop", "donut"),
}
MOTION_WORDS: Final = {
    "still": ("stays still", "waits", "rests"),
    "sway": ("sways", "swings", "drifts from side to side"),
    "bob": ("bobs", "hops", "floats up and down"),
    "circle": ("circles", "orbits", "goes round and round"),
}
PLACE_WORDS: Final = {
    "left": ("on the left", "at the left"),
    "right": ("on the right", "at the right"),
    "top": ("at the top", "near the top"),
    "bottom": ("at the bottom", "near the bottom"),
    "middle": ("in the middle", "in the centre"),
}
PATTERN_WORDS: Final = {"plain": ("plain", ""), "striped": ("striped",), "checked": ("checked", "checkered")}
WALL_WORDS: Final = ("wall", "background")
BEFORE_WORDS: Final = ("in front of", "against")
CAMERA_WORDS: Final = {
    "still": ("", "", "still camera", "the camera stays still"),
    "left": ("the camera pans left", "panning left"),
    "right": ("the camera pans right", "panning right"),
}
UNNAMED: Final = ("it", "the hero", "the same hero")


def hero_phrase(hero: Hero, rng: np.random.Generator) -> str:
    """Describes the hero, as in 'a big red ring'."""
    return f"a {_pick(rng, SIZE_WORDS[hero.size])} {hero.colour} {_pick(rng, SHAPE_WORDS[hero.shape])}"


def shot_phrase(shot: WorldShot, rng: np.random.Generator, *, walled: bool = True) -> str:
    """Describes motion, place and, if `walled`, background and camera.

    An example: 'sways on the left in front of a striped navy wall, the camera pans left'.
    """
    wall = f"{_pick(rng, PATTERN_WORDS[shot.pattern])} {shot.background} {_pick(rng, WALL_WORDS)}".strip()
    # A pan over a plain background is invisible.
    camera = "" if shot.pattern == "plain" else _pick(rng, CAMERA_WORDS[shot.camera])
    phrase = f"{_pick(rng, MOTION_WORDS[shot.motion])} {_pick(rng, PLACE_WORDS[shot.place])}"
    if not walled:
        return phrase
    return f"{phrase} {_pick(rng, BEFORE_WORDS)} a {wall}" + (f", {camera}" if camera else "")


def caption(hero: Hero | None, shot: WorldShot, rng: np.random.Generator, *, walled: bool = True) -> str:
    """Caption of one shot. With `hero` None the hero is not described, and its attributes must be in the KV cache.

    The same holds for the background if the caption is not `walled`.
    """
    subject = _pick(rng, UNNAMED) if hero is None else hero_phrase(hero, rng)
    return f"{subject} {shot_phrase(shot, rng, walled=walled)}"


def vocabulary() -> tuple[str, ...]:
    """All words of the grammar and of the scene-transition prefix, sorted."""
    phrases = ["a", "an", "and", "is", "the scene transitions", *COLOURS, *BACKGROUNDS]
    phrases += [*WALL_WORDS, *BEFORE_WORDS, *UNNAMED]
    for table in (SIZE_WORDS, SHAPE_WORDS, MOTION_WORDS, PLACE_WORDS, PATTERN_WORDS, CAMERA_WORDS):
        phrases += [phrase for synonyms in table.values() for phrase in synonyms]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]
