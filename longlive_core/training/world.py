"""Synthetic films of one or more heroes in several shots, with known contents.

A film is described by data (`WorldFilm`), and its pixels and captions are functions of that description. So the
contents of a generated film can be compared with those that its prompts asked for. All motion has a period of
4 seconds, or three blocks: films of any length repeat what a training film of a few blocks shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from ..types import FPS

SIZE: Final = 128  # height and width of a frame in pixels
PERIOD: Final = 4.0  # seconds after which every motion repeats

Shape = Literal["circle", "square", "triangle", "ring"]
Motion = Literal["still", "sway", "bob", "circle"]
Pattern = Literal["plain", "striped", "checked"]
Camera = Literal["still", "left", "right"]  # the direction in which the background moves in the picture
Pixels = NDArray[np.float32]

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (225, 45, 45),
    "orange": (240, 140, 40),
    "yellow": (240, 225, 60),
    "green": (60, 190, 75),
    "cyan": (70, 215, 225),
    "blue": (60, 95, 235),
    "purple": (165, 70, 215),
    "white": (240, 240, 240),
}
BACKGROUNDS: Final[dict[str, tuple[int, int, int]]] = {
    "black": (16, 16, 22),
    "navy": (20, 30, 84),
    "forest": (16, 64, 40),
    "wine": (86, 20, 42),
    "brown": (92, 60, 30),
    "grey": (112, 112, 118),
}
# Centre of the hero's path, (x, y) as a share of the frame's side; y points down.
PLACES: Final[dict[str, tuple[float, float]]] = {
    "left": (0.32, 0.5),
    "right": (0.68, 0.5),
    "top": (0.5, 0.32),
    "bottom": (0.5, 0.68),
    "middle": (0.5, 0.5),
}
# Radius of the hero as a share of the frame's side.
SIZES: Final = {"small": 0.15, "big": 0.22}
SHAPES: Final[tuple[Shape, ...]] = ("circle", "square", "triangle", "ring")
MOTIONS: Final[tuple[Motion, ...]] = ("still", "sway", "bob", "circle")
PATTERNS: Final[tuple[Pattern, ...]] = ("plain", "striped", "checked")
CAMERAS: Final[tuple[Camera, ...]] = ("still", "left", "right")
AMPLITUDE: Final = 0.09  # of the hero's motion, as a share of the frame's side
TILE: Final = 32  # width of a stripe or a check in pixels
PATTERN_CONTRAST: Final = 26  # difference between the two tones of a pattern in levels of 255


@dataclass(frozen=True)
class Hero:
    """The coloured shape that a film shows. `colour` is a key of COLOURS, `size` of SIZES."""

    shape: Shape
    colour: str
    size: str


@dataclass(frozen=True)
class WorldShot:
    """One shot: background, pattern, motion of the hero and of the camera, and length in video frames.

    `background` is a key of BACKGROUNDS, `place` of PLACES. hero: who is shown instead of the film's hero. recalls:
    number of the earlier shot of which a block is in memory beside this one.
    """

    background: str
    pattern: Pattern
    place: str
    motion: Motion
    camera: Camera
    frames: int
    hero: Hero | None = None
    recalls: int | None = None

    @property
    def wall(self) -> tuple[str, Pattern]:
        """Background and pattern."""
        return self.background, self.pattern


@dataclass(frozen=True)
class WorldFilm:
    """A synthetic film: a hero in one or more shots, some of which may show another one."""

    hero: Hero
    shots: tuple[WorldShot, ...]

    def shown(self, shot: WorldShot) -> Hero:
        """The hero that a shot shows."""
        return shot.hero or self.hero

    @property
    def frames(self) -> int:
        """Number of video frames."""
        return sum(shot.frames for shot in self.shots)


def hero_centre(shot: WorldShot, seconds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre (x, y) of the hero in pixels, `[T, 2]`, at times `[T]` in seconds since the shot began."""
    phase = 2 * np.pi * seconds / PERIOD
    x, y = PLACES[shot.place]
    dx = np.sin(phase) if shot.motion in ("sway", "circle") else np.zeros_like(phase)
    dy = np.sin(phase) if shot.motion == "bob" else np.zeros_like(phase)
    if shot.motion == "circle":
        dy = -np.cos(phase)
    return (np.stack([x + AMPLITUDE * dx, y + AMPLITUDE * dy], axis=-1) * SIZE).astype(np.float32)


def hero_mask(hero: Hero, centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of each pixel that the hero covers, `[T, SIZE, SIZE]` in [0, 1], for centres `[T, 2]` in pixels."""
    grid = np.arange(SIZE, dtype=np.float32) + 0.5
    x = grid[None, None, :] - centre[:, 0, None, None]
    y = grid[None, :, None] - centre[:, 1, None, None]
    radius = np.float32(SIZES[hero.size] * SIZE)
    return np.clip(0.5 - _signed_distance(hero.shape, x, y, radius), 0, 1)


def _signed_distance(
    shape: Shape, x: NDArray[np.float32], y: NDArray[np.float32], r: np.float32
) -> NDArray[np.float32]:
    """Signed distance in pixels from (x, y) to the outline, negative inside; a lower bound outside corners.

    (0, 0) is the hero's centre, r its radius in pixels.
    """
    if shape == "circle":
        return np.hypot(x, y) - r
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.75 * r) - 0.25 * r
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.86 * r
    # A triangle with a horizontal base: the intersection of three half-planes, 0.6 r from its centre of mass.
    side = np.float32(np.sqrt(3) / 2)
    return np.maximum(np.maximum(side * x - 0.5 * y, -side * x - 0.5 * y), y) - 0.6 * r


def background(shot: WorldShot, seconds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Background without the hero, `[T, SIZE, SIZE, 3]` in 0..255, at times `[T]` in seconds since the shot began.

    A pan moves its pattern by 16 pixels a second.
    """
    speed = np.float32({"still": 0.0, "left": 1.0, "right": -1.0}[shot.camera] * 2 * TILE / PERIOD)
    grid = np.arange(SIZE, dtype=np.float32) + 0.5
    x: Pixels = grid[None, None, :] + speed * seconds[:, None, None]
    y = np.broadcast_to(grid[None, :, None], (len(seconds), SIZE, SIZE))
    x = np.broadcast_to(x, y.shape)
    tone = np.zeros_like(y)
    if shot.pattern == "striped":
        tone = _wave(x)
    elif shot.pattern == "checked":
        tone = _wave(x) * _wave(y)
    base = np.array(BACKGROUNDS[shot.background], dtype=np.float32)
    return np.clip(base + np.float32(PATTERN_CONTRAST / 2) * tone[..., None], 0, 255)


def _wave(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Smooth square wave in [-1, 1] with a period of 2 · TILE pixels."""
    return np.tanh(4 * np.sin(np.pi * x / TILE))


def render(film: WorldFilm, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
    """Renders the video frames in [start, stop), `[T, SIZE, SIZE, 3]` uint8; without `stop`, to the last frame."""
    pieces: list[NDArray[np.uint8]] = []
    for shot, seconds in _timeline(film, start, stop):
        colour = np.array(COLOURS[film.shown(shot).colour], dtype=np.float32)
        mask = hero_mask(film.shown(shot), hero_centre(shot, seconds))[..., None]
        pieces.append((background(shot, seconds) * (1 - mask) + colour * mask).round().astype(np.uint8))
    return np.concatenate(pieces)


def render_mask(film: WorldFilm, start: int = 0, stop: int | None = None) -> Pixels:
    """Share of each pixel that the hero covers in the frames in [start, stop), `[T, SIZE, SIZE]` in [0, 1]."""
    timeline = _timeline(film, start, stop)
    return np.concatenate([hero_mask(film.shown(shot), hero_centre(shot, seconds)) for shot, seconds in timeline])


def _timeline(film: WorldFilm, start: int, stop: int | None) -> Iterator[tuple[WorldShot, Pixels]]:
    """Yields the shots that overlap frames [start, stop), each with the times `[T]` of its frames in that range.

    Times are in seconds since the start of the shot.
    """
    end = film.frames if stop is None else stop
    shot_start = 0
    for shot in film.shots:
        frames = np.arange(max(start, shot_start), min(end, shot_start + shot.frames))
        if len(frames):
            yield shot, ((frames - shot_start) / FPS).astype(np.float32)
        shot_start += shot.frames


def sample_hero(rng: np.random.Generator) -> Hero:
    """A random hero."""
    return Hero(
        shape=SHAPES[rng.integers(len(SHAPES))],
        colour=list(COLOURS)[rng.integers(len(COLOURS))],
        size=list(SIZES)[rng.integers(len(SIZES))],
    )


def sample_shot(rng: np.random.Generator, frames: int) -> WorldShot:
    """A random shot of `frames` video frames."""
    return WorldShot(
        background=list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))],
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        place=list(PLACES)[rng.integers(len(PLACES))],
        motion=MOTIONS[rng.integers(len(MOTIONS))],
        camera=CAMERAS[rng.integers(len(CAMERAS))],
        frames=frames,
    )


def sample_film(rng: np.random.Generator, frames: tuple[int, ...]) -> WorldFilm:
    """A random film with one shot for each length in `frames`, in video frames."""
    return WorldFilm(sample_hero(rng), tuple(sample_shot(rng, count) for count in frames))
