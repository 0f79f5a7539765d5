"""Synthetic films: pixels and captions follow from their description."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from longlive.longlive_core.mini.text_encoder import split_words
from longlive.longlive_core.training.captions import SHAPE_WORDS, caption, vocabulary
from longlive.longlive_core.training.films import CUT_PATTERNS, heads, training_film
from longlive.longlive_core.training.world import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    SHAPES,
    SIZE,
    Hero,
    WorldFilm,
    WorldShot,
    render,
    render_mask,
    sample_film,
)
from longlive.longlive_core.types import BLOCK_FRAMES

PERIOD_FRAMES = 96


def films(count: int) -> list[WorldFilm]:
    """Random films of two shots."""
    return [sample_film(np.random.default_rng((3, i)), (40, 60)) for i in range(count)]


@pytest.mark.parametrize("index", range(12))
def test_the_world_repeats_every_four_seconds(index: int) -> None:
    """Frames that are one period apart are equal up to rounding."""
    film = sample_film(np.random.default_rng((4, index)), (PERIOD_FRAMES + 20,))
    early, late = render(film, 5, 10).astype(int), render(film, PERIOD_FRAMES + 5, PERIOD_FRAMES + 10).astype(int)
    assert np.abs(early - late).max() <= 1


def test_a_part_of_a_film_is_that_part_of_the_whole() -> None:
    """Rendering a range of frames gives the same frames as rendering the whole film."""
    for film in films(3):
        assert np.array_equal(render(film)[30:55], render(film, 30, 55))
        assert render_mask(film).shape == (film.frames, SIZE, SIZE)


def test_the_hero_has_its_colour_and_the_corner_the_background() -> None:
    """Pixels of the hero have its colour, a corner has that of the background, and the hero has a fair size."""
    shot = WorldShot("navy", "plain", "middle", "still", "still", 2)
    for colour in COLOURS:
        for shape in SHAPES:
            frame = render(WorldFilm(Hero(shape, colour, "big"), (shot,)))[1]
            mask = render_mask(WorldFilm(Hero(shape, colour, "big"), (shot,)))[1]
            assert (frame[mask == 1] == COLOURS[colour]).all()
            assert tuple(frame[0, 0]) == BACKGROUNDS["navy"]
            assert 0.03 < mask.mean() < 0.2


def test_the_hero_stays_in_the_frame() -> None:
    """At every place and in every motion, nearly nothing of the hero touches the border of the frame."""
    for shape in SHAPES:
        for place in PLACES:
            for motion in ("sway", "bob", "circle"):
                shot = WorldShot("grey", "plain", place, motion, "still", PERIOD_FRAMES)
                mask = render_mask(WorldFilm(Hero(shape, "red", "big"), (shot,)))
                outside = mask[:, 0].sum() + mask[:, -1].sum() + mask[:, :, 0].sum() + mask[:, :, -1].sum()
                assert outside / mask.sum() < 0.004


def test_captions_use_the_vocabulary_and_describe_the_hero_on_request() -> None:
    """Captions use the vocabulary and name the background, and only those for a hero describe it."""
    known = set(vocabulary())
    hero_words = set(COLOURS) | {word for words in SHAPE_WORDS.values() for word in words}
    for index, film in enumerate(films(200)):
        rng = np.random.default_rng((5, index))
        named, unnamed = caption(film.hero, film.shots[0], rng), caption(None, film.shots[0], rng)
        assert set(split_words(named)) | set(split_words(unnamed)) <= known
        assert film.hero.colour in split_words(named)
        assert not hero_words & set(split_words(unnamed))
        assert film.shots[0].background in split_words(unnamed)


def test_cuts_of_training_films_fall_between_blocks() -> None:
    """Shots of training films begin at the first frame of a block."""
    for index in range(30):
        film, shots = training_film(0, index)
        assert tuple(shots.count(shot) for shot in range(shots[-1] + 1)) in CUT_PATTERNS
        assert film.frames == 1 + 4 * (BLOCK_FRAMES * len(shots) - 1)
        cuts = heads(shots)[1:]
        ends = set(np.cumsum([shot.frames for shot in film.shots])[:-1].tolist())
        assert ends == {1 + 4 * (BLOCK_FRAMES * block - 1) for block in cuts}


def test_another_colour_changes_the_hero_alone() -> None:
    """Another colour of the hero changes pixels of the hero only."""
    film = films(1)[0]
    other = replace(film, hero=replace(film.hero, colour="white" if film.hero.colour != "white" else "red"))
    changed = (render(film) != render(other)).any(-1)
    assert changed.any()
    assert not changed[render_mask(film) == 0].any()
