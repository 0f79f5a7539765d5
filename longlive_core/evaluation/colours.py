"""Colours of a block's subject, of what is around it and of all of it, found without a model and without a download.

The subject is where colours are that the border of the picture hardly has: in a film of any model, what stands before
the background. Colours are compared as distributions, so that neither the camera nor the subject has to stand still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .components import Mask, erode, largest_component

Frame = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIDE: Final = 96  # longer sides of a picture are subsampled to this many pixels
BORDER: Final = 0.1  # width of the border as a share of the side
BINS: Final = 16  # of each colour channel, to tell colours of the border from others
RARE: Final = 0.5  # a colour is the subject's if its share of the border is below this part of its share of the picture
MIN_AREA, MAX_AREA = 0.01, 0.6  # of a subject, as a share of the picture
QUANTILES: Final = 16
LIGHT: Final = 1.5  # a subject in this many times the light, or in as much less, is still the same
# Directions in RGB along which distributions are compared: channels, their differences, and the brightness.
_AXES: Final[Floats] = np.array(
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, -1, 0], [0, 1, -1], [1, 0, -1], [1, 1, 1]], dtype=np.float32
)
_DIRECTIONS: Final[Floats] = _AXES / np.linalg.norm(_AXES, axis=1, keepdims=True)


@dataclass(frozen=True, slots=True)
class BlockColours:
    """Colour distributions `[directions, quantiles]` in levels of 255; `subject` is None if no subject stands out."""

    subject: Floats | None
    place: Floats
    whole: Floats


def block_colours(frames: Sequence[Frame]) -> BlockColours:
    """The colours of some frames `[H, W, 3]` of one block."""
    pictures = np.stack([small(frame, SIDE) for frame in frames])
    masks = _unlike_border(pictures)
    subjects = [_subject(picture, mask) for picture, mask in zip(pictures, masks, strict=True)]
    found = [pixels for pixels in subjects if len(pixels)]
    around = pictures[~masks] if (~masks).any() else pictures.reshape(-1, 3)
    return BlockColours(
        _distribution(np.concatenate(found)) if found else None,
        _distribution(around),
        _distribution(pictures.reshape(-1, 3)),
    )


def distance(a: Floats, b: Floats) -> float:
    """How far colours have to be moved to make one distribution of the other, in levels of 255 (sliced Wasserstein)."""
    return float(np.abs(a - b).mean())


def relit_distance(a: Floats, b: Floats) -> float:
    """The distance after the second subject is lit like the first one, within limits."""
    gain = float((a * b).sum() / max(float((b * b).sum()), 1.0))
    return distance(a, b * min(max(gain, 1 / LIGHT), LIGHT))


def small(frame: Frame, side: int) -> Frame:
    """Every n-th pixel of a frame, so that no side is longer than `side`."""
    step = -(-max(frame.shape[:2]) // side)
    return frame[::step, ::step]


def _unlike_border(pictures: Frame) -> Mask:
    """Where pictures `[N, H, W, 3]` have colours that are rare on their border, `[N, H, W]`."""
    N, H, W, _ = pictures.shape
    r, g, b = np.moveaxis(pictures // (256 // BINS), -1, 0).astype(np.intp)
    bins = (r * BINS + g) * BINS + b
    border = np.ones((H, W), dtype=np.bool_)
    y, x = max(1, round(H * BORDER)), max(1, round(W * BORDER))
    border[y:-y, x:-x] = False
    everywhere = np.bincount(bins.ravel(), minlength=BINS**3) / bins.size
    outside = np.bincount(bins[:, border].ravel(), minlength=BINS**3) / (N * border.sum())
    return (outside < RARE * everywhere)[bins]


def _subject(picture: Frame, mask: Mask) -> Frame:
    """The pixels `[N, 3]` of the largest part of a mask, without its outline; none if too small or large."""
    part = largest_component(mask)
    if not MIN_AREA <= part.mean() <= MAX_AREA:
        return picture[:0, 0]
    inside = erode(part, 1)
    return picture[inside if inside.sum() >= MIN_AREA * part.size / 2 else part]


def _distribution(pixels: Frame) -> Floats:
    """Quantiles `[directions, QUANTILES]` of pixels `[N, 3]` along each direction."""
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return np.quantile(pixels.astype(np.float32) @ _DIRECTIONS.T, shares, axis=0).T.astype(np.float32)
