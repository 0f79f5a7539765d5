"""Classical vision probe that reads the attributes of one frame of the synthetic world, without learned parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..training.world import (
    BACKGROUNDS,
    COLOURS,
    PATTERN_CONTRAST,
    PLACES,
    SHAPES,
    SIZE,
    SIZES,
    TILE,
    Hero,
    Pattern,
    Shape,
    hero_mask,
)
from .components import eroded, largest_component

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Colour = tuple[float, float, float]

# Largest deviation of the background from its mean along grey, in levels: half the pattern's contrast plus ringing.
TONE_REACH: Final = PATTERN_CONTRAST / 2 + 5
# Colour distance in levels above which a pixel is not background; hero and background differ by at least 118.
HERO_DISTANCE: Final = 50.0
# Mean of tone times a wave of the pattern's period: 0.6 for a full pattern, 0 for none.
PATTERN_AMPLITUDE: Final = 0.2
# Width and height of the grid on which shapes are compared; it spans twice the root of the hero's area.
CELLS: Final = 48
# Limits of the area of a hero, relative to the smallest and to the largest one.
LEAST_AREA, MOST_AREA = 0.25, 2.5


@dataclass(frozen=True)
class Reading:
    """Attributes of one frame. Without a hero, `hero` is None and the fields after it are 0.

    background_rgb, hero_rgb: measured colours, 0 to 255. centre: (x, y) of the hero in pixels. confidence: intersection
    over union of the hero with the recognised shape, in [0, 1].
    """

    background: str
    pattern: Pattern
    background_rgb: Colour
    hero: Hero | None = None
    hero_rgb: Colour = (0.0, 0.0, 0.0)
    centre: tuple[float, float] = (0.0, 0.0)
    confidence: float = 0.0

    @property
    def found(self) -> bool:
        """Whether a hero was found."""
        return self.hero is not None


def read_frame(frame: NDArray[np.uint8]) -> Reading:
    """Read one frame `[128, 128, 3]` uint8. Raises ValueError for other shapes."""
    if frame.shape != (SIZE, SIZE, 3):
        raise ValueError(f"the probe reads frames of shape [{SIZE}, {SIZE}, 3], not {list(frame.shape)}")
    pixels = frame.astype(np.float32)
    name, wall = _wall(pixels)
    offset = pixels - wall
    tone = offset.mean(axis=-1)
    distance = _distance(offset, tone)
    pattern = _pattern(tone, distance < HERO_DISTANCE / 2)
    empty = Reading(name, pattern, _colour_tuple(wall))
    mask = largest_component(distance > HERO_DISTANCE)
    if mask.sum() < LEAST_AREA * _AREAS.min():
        return empty
    colour = _colour(pixels, mask)
    # Blur does not move the outline half-way between the colours of background and hero.
    share = (offset @ (colour - wall)) / np.square(colour - wall).sum()
    mask = largest_component(share > 0.5)
    area = float(mask.sum())
    if not LEAST_AREA * _AREAS.min() <= area <= MOST_AREA * _AREAS.max():
        return empty
    centre = _centre(mask)
    overlaps = _overlaps(_signature(mask.astype(np.float32), centre, area), _SIGNATURES)
    shape = int(overlaps.argmax())
    size = int(np.abs(np.sqrt(_AREAS[shape]) - np.sqrt(area)).argmin())
    hero = Hero(SHAPES[shape], _nearest(colour, _COLOURS, tuple(COLOURS)), tuple(SIZES)[size])
    return replace(empty, hero=hero, hero_rgb=_colour_tuple(colour), centre=centre, confidence=float(overlaps[shape]))


def nearest_place(centre: tuple[float, float]) -> str:
    """Key of PLACES nearest to a point (x, y) in pixels; for a moving hero, pass its mean over one period."""
    places = SIZE * np.array(list(PLACES.values()), dtype=np.float32)
    return _nearest(np.array(centre, dtype=np.float32), places, tuple(PLACES))


def _wall(pixels: Floats) -> tuple[str, Floats]:
    """Name and mean colour [3] of the wall: every 16th pixel votes for the nearest background, hero or not."""
    sample = pixels[2::4, 2::4].reshape(-1, 1, 3)
    offset = sample - _BACKGROUNDS
    distance = _distance(offset, offset.mean(axis=-1))
    votes = distance.argmin(axis=1)
    winner = int(np.bincount(votes, minlength=len(_BACKGROUNDS)).argmax())
    wall = sample[(votes == winner) & (distance[:, winner] < HERO_DISTANCE), 0]
    mean = wall.mean(axis=0) if len(wall) else _BACKGROUNDS[winner]
    return tuple(BACKGROUNDS)[winner], mean


def _distance(offset: Floats, tone: Floats) -> Floats:
    """Distance in levels of colours `wall + offset` `[..., 3]` from the wall in the nearest of its tones."""
    grey = np.clip(tone, -TONE_REACH, TONE_REACH)
    # |offset - grey·(1, 1, 1)|² without another [..., 3] array; tone is the mean of offset.
    square = np.einsum("...c,...c->...", offset, offset) + 3 * grey * (grey - 2 * tone)
    return np.sqrt(np.maximum(square, 0))


def _pattern(tone: Floats, wall: Mask) -> Pattern:
    """Correlation of the wall's tone with waves in x of any phase: alone for stripes, times a wave in y for checks."""
    count = max(1, int(wall.sum()))
    level = np.where(wall, tone, 0)
    level = np.where(wall, tone - level.sum() / count, 0) / (PATTERN_CONTRAST / 2)
    striped = abs(level.sum(axis=0) @ _WAVE) / count
    checked = abs((_SQUARE_WAVE @ level) @ _WAVE) / count
    if max(striped, checked) < PATTERN_AMPLITUDE:
        return "plain"
    return "striped" if striped > checked else "checked"


def _colour(pixels: Floats, mask: Mask) -> Floats:
    """Median colour [3] of the hero well inside its outline, where it is wide enough to have an inside."""
    inside = eroded(mask, 2)
    return np.median(pixels[inside if inside.sum() >= 16 else mask], axis=0).astype(np.float32)


def _centre(mask: Mask) -> tuple[float, float]:
    """Centre of mass (x, y) in pixels."""
    grid = np.arange(SIZE, dtype=np.float32) + 0.5
    area = mask.sum()
    return float(mask.sum(axis=0) @ grid / area), float(mask.sum(axis=1) @ grid / area)


def _signature(mask: Floats, centre: tuple[float, float], area: float) -> Mask:
    """The mask seen from its centre at the scale of its area [CELLS, CELLS]: independent of place and size."""
    steps = (np.arange(CELLS) + 0.5 - CELLS / 2) * (2 * np.sqrt(area) / CELLS)
    x = np.floor(centre[0] + steps).astype(np.intp)
    y = np.floor(centre[1] + steps).astype(np.intp)
    padded = np.pad(mask, 1)  # what lies outside of the frame is not hero
    rows, columns = np.clip(y + 1, 0, SIZE + 1), np.clip(x + 1, 0, SIZE + 1)
    return padded[rows[:, None], columns[None, :]] > 0.5


def _overlaps(signature: Mask, references: Mask) -> Floats:
    """Intersection over union with each reference [N, CELLS, CELLS] -> [N]."""
    both = (signature & references).sum(axis=(1, 2))
    either = (signature | references).sum(axis=(1, 2))
    return (both / np.maximum(either, 1)).astype(np.float32)


def _nearest(value: Floats, table: Floats, names: tuple[str, ...]) -> str:
    return names[int(np.square(table - value).sum(axis=-1).argmin())]


def _colour_tuple(colour: Floats) -> Colour:
    red, green, blue = colour.tolist()
    return red, green, blue


def _reference_mask(shape: Shape, size: str) -> Floats:
    """A hero in the middle of the frame [SIZE, SIZE]."""
    return hero_mask(Hero(shape, "white", size), np.full((1, 2), SIZE / 2, dtype=np.float32))[0]


_COLOURS: Final = np.array(list(COLOURS.values()), dtype=np.float32)
_BACKGROUNDS: Final = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
_AREAS: Final[Floats] = np.array([[_reference_mask(h, s).sum() for s in SIZES] for h in SHAPES], dtype=np.float32)
_SIGNATURES: Final[Mask] = np.stack(
    [_signature(mask, (SIZE / 2, SIZE / 2), float(mask.sum())) for mask in (_reference_mask(h, "big") for h in SHAPES)]
)
_GRID: Final = np.pi * (np.arange(SIZE) + 0.5) / TILE
_WAVE: Final = np.exp(1j * _GRID)
_SQUARE_WAVE: Final = np.tanh(4 * np.sin(_GRID)).astype(np.float32)

__all__ = ["Reading", "nearest_place", "read_frame"]
