"""The probe reads what was rendered, through blur and noise too, and finds no hero in an empty background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from longlive.longlive_core.evaluation.components import erode, largest_component
from longlive.longlive_core.evaluation.probe import nearest_place, read_frame
from longlive.longlive_core.training import world
from longlive.longlive_core.types import FPS
from numpy.typing import NDArray
from PIL import Image, ImageFilter

# Hundreds of frames are read.
pytestmark = pytest.mark.slow

Frame = NDArray[np.uint8]


def clear(frame: Frame) -> Frame:
    """The frame unchanged."""
    return frame


def blurred(frame: Frame) -> Frame:
    """The frame with a Gaussian blur of 1.5 pixels."""
    return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(1.5)))


def noisy(frame: Frame) -> Frame:
    """The frame with Gaussian noise of 15 levels."""
    noise = np.random.default_rng(3).normal(0, 15, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8)


def washed(frame: Frame) -> Frame:
    """The frame with two thirds of its contrast, like the output of an undertrained decoder."""
    return (60 + (frame.astype(np.float32) - 60) * 0.67).astype(np.uint8)


@pytest.mark.parametrize("change", [clear, blurred, noisy], ids=lambda change: change.__name__)
def test_reads_99_of_100_rendered_frames_per_attribute(change: Callable[[Frame], Frame]) -> None:
    """Each attribute of 600 random frames is read correctly in 99 % or more."""
    rng = np.random.default_rng(71)
    count = 600
    right = dict.fromkeys(("background", "pattern", "colour", "shape", "size", "centre"), 0)
    for _ in range(count):
        film = world.sample_film(rng, (96,))
        moment = int(rng.integers(96))
        shot = film.shots[0]
        reading = read_frame(change(world.render(film, moment, moment + 1)[0]))
        assert reading.hero is not None
        x, y = world.hero_centre(shot, np.array([moment / FPS], dtype=np.float32))[0]
        right["background"] += reading.background == shot.background
        right["pattern"] += reading.pattern == shot.pattern
        right["colour"] += reading.hero.colour == film.hero.colour
        right["shape"] += reading.hero.shape == film.hero.shape
        right["size"] += reading.hero.size == film.hero.size
        right["centre"] += bool(np.hypot(x - reading.centre[0], y - reading.centre[1]) < 2)
    assert {name: value for name, value in right.items() if value < 0.99 * count} == {}


@pytest.mark.parametrize("change", [clear, blurred, noisy], ids=lambda change: change.__name__)
@pytest.mark.parametrize("background", world.BACKGROUNDS)
@pytest.mark.parametrize("pattern", world.PATTERNS)
def test_no_hero_is_found_where_there_is_none(
    background: str, pattern: world.Pattern, change: Callable[[Frame], Frame]
) -> None:
    """In a background without a hero none is found, and background and pattern are read."""
    shot = world.WorldShot(background, pattern, "middle", "still", "left", 96)
    reading = read_frame(change(world.background(shot, np.zeros(1, dtype=np.float32))[0].astype(np.uint8)))
    assert (reading.found, reading.confidence) == (False, 0.0)
    assert (reading.background, reading.pattern) == (background, pattern)


def test_a_speck_and_a_flood_are_not_heroes() -> None:
    """A shape that is far smaller or larger than every hero is not one."""
    frame = np.zeros((128, 128, 3), dtype=np.uint8)
    frame[60:66, 60:66] = 255
    assert not read_frame(frame).found
    frame[:, :100] = (225, 45, 45)
    assert not read_frame(frame).found


def test_colour_and_shape_survive_a_loss_of_contrast() -> None:
    """The hero is read correctly from a frame of lower contrast."""
    film = world.WorldFilm(
        world.Hero("ring", "red", "big"), (world.WorldShot("navy", "plain", "left", "bob", "still", 96),)
    )
    hero = read_frame(washed(world.render(film, 7, 8)[0])).hero
    assert hero == film.hero


def test_confidence_is_lower_for_a_damaged_shape() -> None:
    """A square without one quarter has a lower confidence than a whole one."""
    film = world.WorldFilm(
        world.Hero("square", "white", "big"), (world.WorldShot("navy", "plain", "middle", "still", "still", 1),)
    )
    frame = world.render(film)[0]
    sound = read_frame(frame).confidence
    frame[64:, 64:] = frame[0, 0]
    assert sound > 0.95 > 0.85 > read_frame(frame).confidence


def test_measured_colours_are_those_of_the_palette() -> None:
    """The measured colours of hero and background are those that were rendered."""
    film = world.WorldFilm(
        world.Hero("ring", "cyan", "small"), (world.WorldShot("wine", "checked", "top", "still", "still", 1),)
    )
    reading = read_frame(world.render(film)[0])
    assert reading.hero_rgb == world.COLOURS["cyan"]
    assert np.allclose(reading.background_rgb, world.BACKGROUNDS["wine"], atol=6)


def test_the_larger_of_two_heroes_is_read() -> None:
    """With two shapes in a frame, the larger one is read."""
    left = world.WorldShot("black", "plain", "left", "still", "still", 1)
    large = world.render(world.WorldFilm(world.Hero("circle", "green", "big"), (left,)))[0]
    right = world.WorldShot("black", "plain", "right", "still", "still", 1)
    small = world.render(world.WorldFilm(world.Hero("triangle", "yellow", "small"), (right,)))[0]
    reading = read_frame(np.maximum(large, small))
    assert reading.hero == world.Hero("circle", "green", "big")


def test_another_size_is_refused() -> None:
    """A frame of another size raises an error that names its shape."""
    with pytest.raises(ValueError, match=r"\[64, 64, 3\]"):
        read_frame(np.zeros((64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("place", world.PLACES)
@pytest.mark.parametrize("motion", world.MOTIONS)
def test_the_mean_over_a_period_is_nearest_to_the_place_that_was_asked_for(place: str, motion: world.Motion) -> None:
    """For each motion, the mean position over a period is nearest to the place of the shot."""
    shot = world.WorldShot("black", "plain", place, motion, "still", 96)
    centres = world.hero_centre(shot, np.arange(8, dtype=np.float32) * world.PERIOD / 8)
    assert nearest_place((float(centres[:, 0].mean()), float(centres[:, 1].mean()))) == place


def test_components_match_a_flood_fill() -> None:
    """The largest component has the size that a flood fill finds, and only pixels of the mask."""
    rng = np.random.default_rng(9)
    for density in (0.0, 0.3, 0.55, 0.7, 1.0):
        for _ in range(10):
            mask = rng.random((17, 23)) < density
            assert largest_component(mask).sum() == max(_flood_sizes(mask), default=0)
            assert not (largest_component(mask) & ~mask).any()


def test_erosion_leaves_pixels_deep_enough_inside() -> None:
    """Erosion by 2 leaves the pixels with 2 set neighbours on each side; the edge of the mask is not set."""
    mask = np.zeros((9, 9), dtype=np.bool_)
    mask[2:7, 0:7] = True
    assert np.argwhere(erode(mask, 2)).tolist() == [[4, 2], [4, 3], [4, 4]]


def _flood_sizes(mask: NDArray[np.bool_]) -> list[int]:
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    sizes: list[int] = []
    while left:
        edge, size = [left.pop()], 0
        while edge:
            y, x = edge.pop()
            size += 1
            for point in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if point in left:
                    left.remove(point)
                    edge.append(point)
        sizes.append(size)
    return sizes
