"""A classical vision probe: reads background, pattern and hero from a frame of a synthetic film, without learning."""

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
from .components import Mask, erode, largest_component

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]

# Tones of a background differ by up to this many levels of grey from its mean: half a pattern's contrast, and ringing.
MAX_TONE: Final = PATTERN_CONTRAST / 2 + 5
# A pixel with at least this distance in levels is not background; a hero and a background are 118 or more apart.
HERO_DISTANCE: Final = 50.0
# Least correlation of the tone with a wave of the pattern's period: a pattern has 0.6, a plain background 0.
MIN_CORRELATION: Final = 0.2
# Shapes are compared on a grid of CELLS × CELLS, whose side is twice the square root of the hero's area.
CELLS: Final = 48
# Least area of a hero as a share of the smallest one, and greatest area as a multiple of the largest one.
MIN_AREA, MAX_AREA = 0.25, 2.5


@dataclass(frozen=True)
class Reading:
    """What the probe reads from one frame. If no hero is found, `hero` is None and the fields after it are 0.

    background_rgb, hero_rgb: measured colours, 0 to 255. centre: (x, y) of the hero in pixels. confidence: intersection
    over union of the hero with the shape that was read, in [0, 1].
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
        """Whether the frame shows a hero."""
        return self.hero is not None


def read_frame(frame: NDArray[np.uint8]) -> Reading:
    """Reads a frame `[128, 128, 3]` uint8. Raises ValueError for any other shape."""
    if frame.shape != (SIZE, SIZE, 3):
        raise ValueError(f"the probe reads frames of shape [{SIZE}, {SIZE}, 3], not {list(frame.shape)}")
    pixels = frame.astype(np.float32)
    name, background = _background(pixels)
    offset = pixels - background
    tone = offset.mean(axis=-1)
    distance = _distance(offset, tone)
    pattern = _pattern(tone, distance < HERO_DISTANCE / 2)
    empty = Reading(name, pattern, _colour_tuple(background))
    mask = largest_component(distance > HERO_DISTANCE)
    if mask.sum() < MIN_AREA * _AREAS.min():
        return empty
    colour = _colour(pixels, mask)
    # Blur leaves the outline in place where a pixel is half background and half hero.
    share = (offset @ (colour - background)) / np.square(colour - background).sum()
    mask = largest_component(share > 0.5)
    area = float(mask.sum())
    if not MIN_AREA * _AREAS.min() <= area <= MAX_AREA * _AREAS.max():
        return empty
    centre = _centre(mask)
    overlaps = _overlaps(_signature(mask.astype(np.float32), centre, area), _SIGNATURES)
    shape = int(overlaps.argmax())
    size = int(np.abs(np.sqrt(_AREAS[shape]) - np.sqrt(area)).argmin())
    hero = Hero(SHAPES[shape], _nearest(colour, _COLOURS, tuple(COLOURS)), tuple(SIZES)[size])
    return replace(empty, hero=hero, hero_rgb=_colour_tuple(colour), centre=centre, confidence=float(overlaps[shape]))


def read_shape(frame: NDArray[np.uint8]) -> str | None:
    """The shape of the hero in a frame `[128, 128, 3]` uint8; None if no hero is found."""
    hero = read_frame(frame).hero
    return None if hero is None else hero.shape


def nearest_place(centre: tuple[float, float]) -> str:
    """The key of PLACES nearest to a point (x, y) in pixels. For a moving hero, pass the mean over a period."""
    places = SIZE * np.array(list(PLACES.values()), dtype=np.float32)
    return _nearest(np.array(centre, dtype=np.float32), places, tuple(PLACES))


def _background(pixels: Floats) -> tuple[str, Floats]:
    """Name and mean colour `[3]` of the background, for which every 16th pixel votes, including the hero's."""
    sample = pixels[2::4, 2::4].reshape(-1, 1, 3)
    offset = sample - _BACKGROUNDS
    distance = _distance(offset, offset.mean(axis=-1))
    votes = distance.argmin(axis=1)
    winner = int(np.bincount(votes, minlength=len(_BACKGROUNDS)).argmax())
    members = sample[(votes == winner) & (distance[:, winner] < HERO_DISTANCE), 0]
    mean = members.mean(axis=0) if len(members) else _BACKGROUNDS[winner]
    return tuple(BACKGROUNDS)[winner], mean


def _distance(offset: Floats, tone: Floats) -> Floats:
    """Distance in levels, `[...]`, between colours `background + offset` and the nearest tone of the background.

    offset: `[..., 3]`. tone: mean of `offset` over its last dimension.
    """
    grey = np.clip(tone, -MAX_TONE, MAX_TONE)
    # |offset − grey · (1, 1, 1)|² without another array of [..., 3].
    square = np.einsum("...c,...c->...", offset, offset) + 3 * grey * (grey - 2 * tone)
    return np.sqrt(np.maximum(square, 0))


def _pattern(tone: Floats, background: Mask) -> Pattern:
    """The pattern with which the tone `[H, W]` correlates best: a wave in x of any phase, or that times a wave in y.

    background: mask `[H, W]`.
    """
    count = max(1, int(background.sum()))
    level = np.where(background, tone, 0)
    level = np.where(background, tone - level.sum() / count, 0) / (PATTERN_CONTRAST / 2)
    striped = abs(level.sum(axis=0) @ _WAVE) / count
    checked = abs((_SQUARE_WAVE @ level) @ _WAVE) / count
    if max(striped, checked) < MIN_CORRELATION:
        return "plain"
    return "striped" if striped > checked else "checked"


def _colour(pixels: Floats, mask: Mask) -> Floats:
    """Median colour `[3]` of the hero, 2 pixels or more inside its outline if it is large enough."""
    inside = erode(mask, 2)
    return np.median(pixels[inside if inside.sum() >= 16 else mask], axis=0).astype(np.float32)


def _centre(mask: Mask) -> tuple[float, float]:
    """Centre of mass (x, y) of a mask `[H, W]` in pixels."""
    grid = np.arange(SIZE, dtype=np.float32) + 0.5
    area = mask.sum()
    return float(mask.sum(axis=0) @ grid / area), float(mask.sum(axis=1) @ grid / area)


def _signature(mask: Floats, centre: tuple[float, float], area: float) -> Mask:
    """The mask `[H, W]` resampled around its centre to `[CELLS, CELLS]`, at a scale that makes all areas equal."""
    steps = (np.arange(CELLS) + 0.5 - CELLS / 2) * (2 * np.sqrt(area) / CELLS)
    x = np.floor(centre[0] + steps).astype(np.intp)
    y = np.floor(centre[1] + steps).astype(np.intp)
    padded = np.pad(mask, 1)  # pixels outside the frame do not belong to the hero
    rows, columns = np.clip(y + 1, 0, SIZE + 1), np.clip(x + 1, 0, SIZE + 1)
    return padded[rows[:, None], columns[None, :]] > 0.5


def _overlaps(signature: Mask, references: Mask) -> Floats:
    """Intersection over union with each reference `[N, CELLS, CELLS]`, `[N]`."""
    intersection = (signature & references).sum(axis=(1, 2))
    union = (signature | references).sum(axis=(1, 2))
    return (intersection / np.maximum(union, 1)).astype(np.float32)


def _nearest(value: Floats, table: Floats, names: tuple[str, ...]) -> str:
    return names[int(np.square(table - value).sum(axis=-1).argmin())]


def _colour_tuple(colour: Floats) -> Colour:
    red, green, blue = colour.tolist()
    return red, green, blue


def _reference_mask(shape: Shape, size: str) -> Floats:
    """Mask `[SIZE, SIZE]` of a hero in the middle of the frame."""
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
