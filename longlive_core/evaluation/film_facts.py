"""What a continuity report needs of a film's frames: colours of blocks, steps between frames, cuts, and features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from statistics import median
from typing import Final

import numpy as np

from ..types import BlockSpec
from .colours import BlockColours, Floats, Frame, block_colours, small
from .features import Embed, block_features
from .pixels import CUT_WIDTH, cut_finder

SAMPLES: Final = 4  # frames of a block whose colours are read
# A cut without PySceneDetect: a step between frames of this many levels, and of this many times those beside it.
CUT_STEP, CUT_RATIO, CUT_REACH = 8.0, 3.0, 8


@dataclass(frozen=True, slots=True)
class FilmFacts:
    """Facts of a film or of a part of it.

    blocks: by index; a shot is not compared with one that is missing. steps: mean absolute difference in levels of 255
    of a frame, by its index, from the one before. found: cuts that were found, as the indices of the first frames after
    them. features: unit vectors of the blocks by a vision model, if one was given.
    """

    blocks: Mapping[int, BlockColours]
    steps: Mapping[int, float]
    found: frozenset[int]
    features: Mapping[int, Floats] = field(default_factory=dict[int, Floats])

    def with_stills(self, stills: Mapping[int, Frame], embed: Embed | None = None) -> FilmFacts:
        """The facts with pictures `[H, W, 3]` of cast files, by the numbers of their blocks: -1, -2, …"""
        colours = {n: block_colours([still]) for n, still in stills.items()}
        features = {} if embed is None else {n: block_features(embed, [still]) for n, still in stills.items()}
        return replace(self, blocks={**self.blocks, **colours}, features={**self.features, **features})

    def with_part(self, part: FilmFacts) -> FilmFacts:
        """The facts of the film with a part of it replaced."""
        others = {frame for frame in self.found if frame not in part.steps}
        return FilmFacts(
            {**self.blocks, **part.blocks},
            {**self.steps, **part.steps},
            part.found | others,
            {**self.features, **part.features},
        )


def has_detector() -> bool:
    """Whether PySceneDetect is installed, which finds cuts beside our own rule."""
    return find_spec("scenedetect") is not None


def film_facts(
    frames: Iterable[Frame],
    blocks: Sequence[BlockSpec],
    first: int = 0,
    *,
    detector: bool | None = None,
    embed: Embed | None = None,
) -> FilmFacts:
    """Reads the frames `[H, W, 3]` of consecutive blocks one by one.

    first: index of the first frame, which may lie a little behind the begin of the first block. detector: find cuts
    with PySceneDetect too; None: if it is installed. embed: a vision model for the features; None: there are none.
    Raises ValueError if there are fewer frames than the blocks have.
    """
    last = blocks[-1].video_start + blocks[-1].video_frames
    find = cut_finder() if (has_detector() if detector is None else detector) else None
    wanted = {frame: block.index for block in blocks for frame in _samples(block)}
    ends = {max(_samples(block)) for block in blocks}
    samples = list[Frame]()  # of one block: those of a whole film would fill the memory
    colours, features = dict[int, BlockColours](), dict[int, Floats]()
    steps, found = dict[int, float](), set[int]()
    previous: Frame | None = None
    index = first - 1
    for index, frame in enumerate(frames, first):
        if index in wanted:
            samples.append(frame)
        if index in ends:
            colours[wanted[index]] = block_colours(samples)
            if embed is not None:
                features[wanted[index]] = block_features(embed, samples)
            samples = []
        if find is not None:
            found.update(first + cut for cut in find(frame))
        shown = small(frame, CUT_WIDTH)
        if previous is not None:
            steps[index] = float(np.abs(shown.astype(np.int16) - previous).mean())
        previous = shown
    if index + 1 < last:
        raise ValueError(f"the film has {index + 1} frames, but its plan has {last}; finish it first")
    return FilmFacts(colours, steps, frozenset(found | _jumps(steps)), features)


def _samples(block: BlockSpec) -> list[int]:
    """Indices of frames spread over a block."""
    count = block.video_frames
    return [block.video_start + (2 * i + 1) * count // (2 * SAMPLES) for i in range(SAMPLES)]


def _jumps(steps: Mapping[int, float]) -> set[int]:
    """Frames whose step stands out from those around it: a cut between shots of similar colours, too."""

    def around(frame: int) -> float:
        near = range(frame - CUT_REACH, frame + CUT_REACH + 1)
        return median(steps[other] for other in near if other in steps and other != frame)

    return {frame for frame, step in steps.items() if step >= CUT_STEP and step >= CUT_RATIO * around(frame)}
