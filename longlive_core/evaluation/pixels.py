"""Measures of a film that need its frames and its block plan only, no probe and no known contents: of any model.

Cuts are found by PySceneDetect and similarity is torchmetrics' SSIM; both are in the optional extra `eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..script import BlockPlan
from ..types import TIME_FACTOR
from .bootstrap import Sums

Frame = NDArray[np.uint8]
Place = Literal["seam", "boundary"]
CutFinder = Callable[[Frame], Sequence[int]]

# A found cut is right if it is at most this many frames from a cut of the script: the length of a latent frame.
CUT_TOLERANCE: Final = TIME_FACTOR
# Change of hue, saturation and brightness (0 to 255) that is a cut. PySceneDetect's default, 27, is made for footage.
CUT_THRESHOLD: Final = 15.0
CUT_WIDTH: Final = 320  # wider frames are subsampled for the search of cuts
EXTRA: Final = ("scenedetect", "torchmetrics")


class MissingExtraError(ValueError):
    """A package of the extra `eval` is not installed."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Number of cuts in the script, of cuts found in the film, and of found cuts that are cuts of the script."""

    asked: int
    found: int
    matched: int


@dataclass(frozen=True, slots=True)
class FilmPixels:
    """Measures of one film. Sums are over pairs of frames or over shots; None where the extra is left out.

    seam, boundary: mean absolute difference of consecutive frames in levels of 255, across seams within a shot, and
    across the boundaries of latent frames next to them. seam_ssim, boundary_ssim: similarity of the same frames.
    colour_drift: distance in levels between the mean colours of the first and the last block of a shot. contrast_drift:
    standard deviation of the last block's pixels divided by that of the first one's.
    """

    seam: Sums
    boundary: Sums
    seam_ssim: Sums | None
    boundary_ssim: Sums | None
    colour_drift: Sums
    contrast_drift: Sums
    cuts: Cuts | None


def require_extra() -> None:
    """Raises MissingExtraError if a package of the extra `eval` is missing."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"cuts and SSIM need {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            'pip install "longlive-video[eval]", or leave these measures out with --no-extra'
        )


def measure_pixels(frames: Iterable[Frame], plan: BlockPlan, *, extra: bool = True) -> FilmPixels:
    """Measures a film, given its frames `[H, W, 3]` uint8 one by one. extra: find cuts and compute SSIM too.

    Raises MissingExtraError, and ValueError if the film is shorter than its plan.
    """
    if extra:
        require_extra()
    finder, found = cut_finder() if extra else None, list[int]()
    places = _places(plan)
    steps: dict[Place, list[float]] = {"seam": [], "boundary": []}
    similar: dict[Place, list[float]] = {"seam": [], "boundary": []}
    blocks: list[list[tuple[float, ...]]] = [[] for _ in plan.blocks]
    begins = {block.video_start: block.index for block in plan.blocks}
    previous: Frame | None = None
    index, block = -1, 0
    for index, frame in enumerate(frames):
        block = begins.get(index, block)
        blocks[block].append((*frame.mean(axis=(0, 1)).tolist(), float(frame.std())))
        if finder is not None:
            found += finder(frame)
        if previous is not None and (place := places.get(index)):
            steps[place].append(float(np.abs(frame.astype(np.int16) - previous).mean()))
            if extra:
                similar[place].append(ssim(frame, previous))
        previous = frame
    if index + 1 < plan.video_frames:
        raise ValueError(f"the film has {index + 1} frames, but its plan has {plan.video_frames}; finish it first")
    colour, contrast = _drift(plan, [np.mean(values, axis=0) for values in blocks])
    return FilmPixels(
        seam=_sums(steps["seam"]),
        boundary=_sums(steps["boundary"]),
        seam_ssim=_sums(similar["seam"]) if extra else None,
        boundary_ssim=_sums(similar["boundary"]) if extra else None,
        colour_drift=_sums(colour),
        contrast_drift=_sums(contrast),
        cuts=match_cuts(found, [block.video_start for block in plan.blocks if block.cut]) if extra else None,
    )


def match_cuts(found: Iterable[int], asked: Iterable[int], tolerance: int = CUT_TOLERANCE) -> Cuts:
    """Compares cuts as indices of the first frame of a shot. Each cut of the script matches one found cut at most."""
    left, found = sorted(found), tuple(found)
    asked = tuple(asked)
    matched = 0
    for cut in sorted(asked):
        near = [other for other in left if abs(other - cut) <= tolerance]
        if near:
            left.remove(min(near, key=lambda other, cut=cut: abs(other - cut)))
            matched += 1
    return Cuts(len(asked), len(found), matched)


def cut_finder() -> CutFinder:
    """A detector that takes the frames `[H, W, 3]` of a film one by one and returns the cuts that it has found so far.

    A cut is returned once, as the index of its first frame.
    """
    from scenedetect import ContentDetector, FrameTimecode  # pyright: ignore[reportMissingImports] (optional)

    detector, frames = ContentDetector(threshold=CUT_THRESHOLD), 0

    def find(frame: Frame) -> Sequence[int]:
        nonlocal frames
        step = -(-frame.shape[1] // CUT_WIDTH)
        small = np.ascontiguousarray(frame[::step, ::step, ::-1])  # the detector reads BGR
        found = detector.process_frame(FrameTimecode(frames, 24.0), small)
        frames += 1
        return [int(cut.frame_num) for cut in found]

    return find


def ssim(a: Frame, b: Frame) -> float:
    """Structural similarity of two frames `[H, W, 3]`, at most 1."""
    from torchmetrics.functional import image  # pyright: ignore[reportMissingImports] (optional)

    x, y = (torch.from_numpy(frame).permute(2, 0, 1)[None].float() for frame in (a, b))
    value = image.structural_similarity_index_measure(x, y, data_range=255.0)
    return float(value[0] if isinstance(value, tuple) else value)


def _places(plan: BlockPlan) -> dict[int, Place]:
    """The seams within shots and the boundaries of latent frames next to them, as the indices of the frames after."""
    pairs = zip(plan.blocks, plan.blocks[1:], strict=False)
    seams = [block.video_start for before, block in pairs if before.shot == block.shot]
    places: dict[int, Place] = {seam + step: "boundary" for seam in seams for step in (-TIME_FACTOR, TIME_FACTOR)}
    places.update((seam, "seam") for seam in seams)
    return places


def _drift(plan: BlockPlan, blocks: Sequence[NDArray[np.float64]]) -> tuple[list[float], list[float]]:
    """Distance of mean colours and ratio of contrasts of the last and the first block of each shot of two or more."""
    colour: list[float] = []
    contrast: list[float] = []
    for shot in range(plan.shots):
        own = [block.index for block in plan.blocks if block.shot == shot]
        if len(own) > 1:
            first, last = blocks[own[0]], blocks[own[-1]]
            colour.append(float(np.linalg.norm(last[:3] - first[:3])))
            contrast.append(float(last[3] / max(first[3], 1e-6)))
    return colour, contrast


def _sums(values: Sequence[float]) -> Sums:
    return float(sum(values)), float(len(values))
