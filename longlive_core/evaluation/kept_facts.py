"""Facts of the blocks of a film's file that are kept, so that after a retake only what changed is measured.

A block is measured again if its encoded frames or those of a block beside it are others: what is a cut depends on the
frames around it. Each block has an encoder of its own, so that equal blocks are equal bytes in every film. In pictures
that flash, PySceneDetect may look further back than a block, and then find other cuts than in the whole film.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..script import BlockPlan
from ..types import BlockSpec
from ..video import PacketSource, read_frames
from .colours import BlockColours, Floats, Frame
from .film_facts import FilmFacts, film_facts, has_detector

FORMAT: Final = "longlive-block-facts-1"
DIGITS: Final = 3  # of distributions and steps, in levels of 255


@dataclass(frozen=True, slots=True)
class KeptFacts:
    """Facts of one block. key: see `_keys`. steps, found: see `FilmFacts`; frames count from the block's first one."""

    key: str
    colours: BlockColours
    steps: Mapping[int, float]
    found: tuple[int, ...]

    @classmethod
    def of(cls, key: str, facts: FilmFacts, block: BlockSpec) -> KeptFacts:
        """The facts of a block of a film or of a part of it, rounded."""
        frames = range(block.video_start, block.video_start + block.video_frames)
        steps = {frame - frames.start: round(facts.steps[frame], DIGITS) for frame in frames if frame in facts.steps}
        colours, found = facts.blocks[block.index], sorted(facts.found.intersection(frames))
        subject = None if colours.subject is None else _rounded(colours.subject)
        rounded = BlockColours(subject, _rounded(colours.place), _rounded(colours.whole))
        return cls(key, rounded, steps, tuple(frame - frames.start for frame in found))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> KeptFacts:
        """Raises KeyError, TypeError, ValueError or AttributeError for data that are no facts."""
        subject, place, whole = (None if x is None else np.array(x, dtype=np.float32) for x in data["colours"])
        if place is None or whole is None:
            raise ValueError("a block without colours")
        steps = {int(frame): float(step) for frame, step in data["steps"].items()}
        return cls(str(data["key"]), BlockColours(subject, place, whole), steps, tuple(map(int, data["found"])))

    def as_json(self) -> dict[str, Any]:
        """The facts for `from_json`."""
        colours = [self.colours.subject, self.colours.place, self.colours.whole]
        # Of float32, rounded once more as numbers of Python, so that they are short in a file.
        lists = [None if x is None else x.astype(np.float64).round(DIGITS).tolist() for x in colours]
        return {"key": self.key, "colours": lists, "steps": self.steps, "found": self.found}


def measure_blocks(
    film: Path, plan: BlockPlan, kept: Mapping[str, KeptFacts], check: Callable[[], None] = lambda: None
) -> tuple[KeptFacts, ...]:
    """The facts of every block of a film's file. kept: those of earlier films, by their keys.

    check: called for every frame that is read; what it raises ends the work. Raises ValueError for a film that is
    shorter than its plan, and OSError.
    """
    keys = _keys(film, plan)
    facts = {block.index: kept[key] for block, key in zip(plan.blocks, keys, strict=True) if key and key in kept}
    missing = {block.index for block in plan.blocks} - facts.keys()
    needed = {index for block in missing for index in range(block - 1, block + 2)}
    for specs in _runs(plan.blocks, needed):
        start, end = specs[0].video_start, specs[-1].video_start + specs[-1].video_frames
        part = film_facts(_checked(read_frames(film, start, end), check), specs, start)
        facts |= {
            block.index: KeptFacts.of(keys[block.index], part, block) for block in specs if block.index in missing
        }
    return tuple(facts[block.index] for block in plan.blocks)


def joined(blocks: Sequence[KeptFacts], plan: BlockPlan) -> FilmFacts:
    """The facts of a film."""
    pairs = list(zip(plan.blocks, blocks, strict=True))
    return FilmFacts(
        {spec.index: block.colours for spec, block in pairs},
        {spec.video_start + frame: step for spec, block in pairs for frame, step in block.steps.items()},
        frozenset(spec.video_start + frame for spec, block in pairs for frame in block.found),
    )


def _keys(film: Path, plan: BlockPlan) -> list[str]:
    """Of each block, the digest of its encoded frames and of those beside it; empty if blocks cannot be read alone."""
    source = PacketSource(film)
    try:
        if source.frames < plan.video_frames:
            frames = f"{source.frames} frames, but its plan has {plan.video_frames}"
            raise ValueError(f"the film has {frames}; finish it first")
        ends = (*(block.video_start for block in plan.blocks), plan.video_frames)
        if not all(map(source.can_cut, ends)):
            return [""] * len(plan.blocks)
        own = [_digest(source, block) for block in plan.blocks]
    finally:
        source.close()
    made_by = f"{FORMAT} {has_detector()} {source.format}"
    around = zip(["", *own], own, [*own[1:], ""], strict=False)
    return [hashlib.sha256("/".join((made_by, *digests)).encode()).hexdigest()[:32] for digests in around]


def _digest(source: PacketSource, block: BlockSpec) -> str:
    digest = hashlib.sha256()
    for frame in source.pieces(block.video_start, block.video_start + block.video_frames):
        digest.update(frame.data)
    return digest.hexdigest()


def _runs(blocks: Sequence[BlockSpec], needed: set[int]) -> Iterator[list[BlockSpec]]:
    """The blocks with these indices, consecutive ones together."""
    wanted = (block for block in blocks if block.index in needed)
    for _, run in groupby(enumerate(wanted), key=lambda pair: pair[1].index - pair[0]):
        yield [block for _, block in run]


def _checked(frames: Iterator[Frame], check: Callable[[], None]) -> Iterator[Frame]:
    for frame in frames:
        check()
        yield frame


def _rounded(values: Floats) -> Floats:
    return values.round(DIGITS)
