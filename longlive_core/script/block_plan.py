"""Plans shots as whole blocks; every rounding is reported in a note."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from math import ceil, floor, isfinite
from typing import TYPE_CHECKING

from ..types import TIME_FACTOR, BlockSpec, video_frames
from ..units import numbered, plural
from .duration import MAX_SECONDS, Length
from .recall import Recalled, resolve

if TYPE_CHECKING:
    from .cast import CastEntry
    from .shots import Shot

CUT_PREFIX = "The scene transitions. "
DEFAULT_SECONDS = 4


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The blocks of a film. `notes` say where the plan differs from the script.

    `fps` is video frames per second, `block_frames` latent frames per block.
    """

    blocks: tuple[BlockSpec, ...]
    fps: float
    block_frames: int
    notes: tuple[str, ...] = ()

    @property
    def latent_frames(self) -> int:
        """Latent frames of the whole film."""
        return len(self.blocks) * self.block_frames

    @property
    def video_frames(self) -> int:
        """Video frames of the whole film."""
        return video_frames(self.latent_frames)

    @property
    def seconds(self) -> float:
        """Length of the whole film in seconds."""
        return self.video_frames / self.fps

    @property
    def shots(self) -> int:
        """Number of shots, including `continue` shots."""
        return self.blocks[-1].shot + 1

    def with_first_blocks(self, blocks: tuple[BlockSpec, ...]) -> BlockPlan:
        """Returns this plan with its first blocks replaced by finished ones."""
        return replace(self, blocks=(*blocks, *self.blocks[len(blocks) :]))

    @property
    def blocks_of_shots(self) -> tuple[tuple[BlockSpec, ...], ...]:
        """The blocks of each shot, in order."""
        return tuple(tuple(blocks) for _, blocks in groupby(self.blocks, key=lambda block: block.shot))

    def begins_shot(self, block: BlockSpec) -> bool:
        """Returns whether a block is the first of its shot, with or without a cut."""
        return block.index == 0 or self.blocks[block.index - 1].shot != block.shot

    def text(self) -> str:
        """Returns the plan as text: a line for the film, a line for each shot, then the notes."""
        grid = Grid(Fraction(self.fps), self.block_frames)
        counts = ((self.shots, "shot"), (len(self.blocks), "block"), (self.video_frames, "frame"))
        lines = [f"{', '.join(plural(count, noun) for count, noun in counts)}, {self.seconds:.2f} s"]
        for blocks in self.blocks_of_shots:
            first, end = blocks[0], blocks[-1].index + 1
            start, stop = (_format_seconds(grid.seconds(0, index)) for index in (first.index, end))
            kept, cast = ([i for i in first.recalled if (i < 0) == of_cast] for of_cast in (False, True))
            recalls = f", recalls {numbered('block', sorted(kept))}" if kept else ""
            recalls += f", recalls {numbered('cast file', sorted(-i for i in cast))}" if cast else ""
            length = f"{plural(len(blocks), 'block')}{recalls}"
            lines.append(f"shot {first.shot + 1}: {start} to {stop}, {length}: {first.prompt}")
        return "\n".join([*lines, *self.notes])

    def then(self, other: BlockPlan, cut: bool = True) -> BlockPlan:
        """Returns one plan with this film followed by `other`, with a cut between them unless `cut` is false.

        Raises ValueError if the frame rates or block lengths differ.
        """
        if (self.fps, self.block_frames) != (other.fps, other.block_frames):
            raise ValueError(
                f"a film of {self.fps:g} fps in blocks of {self.block_frames} latent frames cannot go on with "
                f"{other.fps:g} fps in blocks of {other.block_frames}; plan both scripts alike"
            )
        added = [
            replace(
                block,
                index=len(self.blocks) + block.index,
                shot=self.shots + block.shot,
                start=self.latent_frames + block.start,
                cut=block.cut or (cut and block.index == 0),
                prompt=cut_prompt(block.prompt) if cut and block.index == 0 else block.prompt,
                recalled=tuple(i if i < 0 else len(self.blocks) + i for i in block.recalled),
            )
            for block in other.blocks
        ]
        return replace(self, blocks=(*self.blocks, *added), notes=other.notes)


@dataclass(frozen=True, slots=True)
class Grid:
    """Converts between frames, blocks and seconds.

    k blocks are k·unit - 3 video frames, because the first latent frame of a film is 1 video frame, not 4.
    """

    fps: Fraction
    block_frames: int

    @property
    def unit(self) -> int:
        """Video frames per block, except for the first block of the film."""
        return self.block_frames * TIME_FACTOR

    def frame_at(self, time: Length) -> Fraction:
        """Converts a time from the start of the film to video frames."""
        frames = time.frames(self.fps, self.unit)
        return max(frames - (TIME_FACTOR - 1), Fraction(0)) if time.unit == "blocks" else frames

    def blocks(self, frames: Fraction) -> Fraction:
        """Returns the number of blocks, as a fraction, in the first `frames` video frames of the film."""
        return (frames + TIME_FACTOR - 1) / self.unit if frames else Fraction(0)

    def seconds(self, first: int, last: int) -> Fraction:
        """Returns the length of blocks [first, last) in seconds."""
        return (video_frames(last * self.block_frames) - video_frames(first * self.block_frames)) / self.fps


@dataclass(frozen=True, slots=True)
class RequestedShot:
    """A shot as requested by the script, before rounding: from video frame `start` to `end`.

    `absolute`: the script gives times of the film, not a length. `unspecified`: the script gives no length.
    """

    shot: Shot
    number: int
    start: Fraction
    end: Fraction
    absolute: bool = False
    unspecified: bool = False

    def blocks(self, grid: Grid) -> Fraction:
        """Returns the requested length in blocks, as a fraction."""
        return grid.blocks(self.end) - grid.blocks(self.start)

    def seconds(self, grid: Grid) -> Fraction:
        """Returns the requested length in seconds."""
        return (self.end - self.start) / grid.fps


def make_plan(
    shots: Sequence[Shot],
    fps: float,
    block_frames: int,
    notes: Sequence[str],
    default_seconds: float,
    auto_recall: bool = False,
    cast: Sequence[CastEntry] = (),
) -> BlockPlan:
    """Plans the shots in whole blocks; see `ShotScript.plan`."""
    if not (isfinite(fps) and fps > 0 and block_frames > 0):
        raise ValueError(f"fps is {fps:g} and block_frames {block_frames}; both must be numbers above zero")
    if not 0 < default_seconds <= MAX_SECONDS:
        raise ValueError(f"the default shot length is {default_seconds:g} s; it must be above 0 and at most 24 h")
    grid = Grid(Fraction(fps), block_frames)
    notes = list(notes)
    blocks, firsts, recalled = list[BlockSpec](), list[int](), resolve(shots, auto=auto_recall, cast=cast)
    for requested in requested_shots(shots, grid, notes, Fraction(default_seconds)):
        first = len(blocks)
        firsts.append(first)
        last = first + _count(requested, grid, first, len(shots))
        if grid.seconds(0, last) > MAX_SECONDS:
            remedy = "make shots shorter or split the film in two scripts"
            raise requested.shot.source.error(f"with shot {requested.number} the film is longer than 24 h", remedy)
        if (planned := grid.seconds(first, last)) != requested.seconds(grid) and not requested.unspecified:
            what = f"{plural(last - first, 'block')}, {_format_seconds(planned)}"
            notes.append(f"shot {requested.number}: {_requested_length(requested, grid)} becomes {what}")
        _check_kept(requested, last - first)
        indices = _indices(recalled[len(firsts) - 1], firsts)
        blocks += (replace(spec, recalled=indices) for spec in _specs(requested, range(first, last), block_frames))
    return BlockPlan(tuple(blocks), fps, block_frames, tuple(notes))


def requested_shots(shots: Sequence[Shot], grid: Grid, notes: list[str], default: Fraction) -> Iterator[RequestedShot]:
    """Yields the requested shots. A shot without a length lasts until the start time of the next shot, if that has one.

    Appends to `notes` each start time that is moved.
    """
    clock = Fraction(0)
    for number, (shot, following) in enumerate(zip(shots, [*shots[1:], None], strict=True), 1):
        start = clock
        if shot.start is not None:
            start = grid.frame_at(shot.start)
            _check_start(shot, number, start, clock, grid, notes)
        until = following.start if following is not None else None
        if shot.duration is not None and shot.start is not None:
            until = shot.start + shot.duration
        if shot.duration is not None and shot.start is None:
            clock = grid.frame_at(shot.duration) if start == 0 else start + shot.duration.frames(grid.fps, grid.unit)
            yield RequestedShot(shot, number, start, clock)
        elif until is not None and (shot.duration is not None or grid.frame_at(until) > start):
            clock = grid.frame_at(until)
            yield RequestedShot(shot, number, start, clock, absolute=True)
        else:
            clock = start + default * grid.fps
            yield RequestedShot(shot, number, start, clock, unspecified=True)


def _check_start(shot: Shot, number: int, start: Fraction, clock: Fraction, grid: Grid, notes: list[str]) -> None:
    """Compares a start time with the end of the shot before: an error beyond half a block, else a note."""
    if start == clock:
        return
    before = (
        f"shot {number - 1} ends at {_format_seconds(clock / grid.fps)}" if number > 1 else "the film starts at 0 s"
    )
    message = f"shot {number} starts at {shot.start}, but {before}"
    if abs(start - clock) * 2 > grid.unit:
        raise shot.source.error(message, "make the times meet, or write a length in round brackets, as in (4s)")
    notes.append(message)


def _count(requested: RequestedShot, grid: Grid, first: int, shots: int) -> int:
    """Rounds the length to whole blocks. With absolute times both ends are rounded, so that errors do not add up."""
    blocks = requested.blocks(grid)
    if blocks * 2 < 1 and not requested.unspecified:
        shortest = grid.seconds(first, first + 1)
        neighbour = requested.number - 1 if requested.number > 1 else 2
        merge = f" or merge it with shot {neighbour}" if shots > 1 else ""
        raise requested.shot.source.error(
            f"shot {requested.number} asks for {_requested_length(requested, grid)}; the shortest shot is one block, "
            f"{_format_seconds(shortest)} at {float(grid.fps):g} fps",
            f"use {ceil(shortest * 10) / 10:g} s{merge}",
        )
    if requested.absolute:
        return max(1, _nearest(grid.blocks(requested.end)) - _nearest(grid.blocks(requested.start)))
    return max(1, _nearest(blocks))


def _check_kept(requested: RequestedShot, blocks: int) -> None:
    """Raises ScriptError if the shot keeps a block that it does not have."""
    for kept in requested.shot.keeps:
        if kept.block > blocks:
            raise requested.shot.source.error(
                f"shot {requested.number} keeps its block {kept.block} as '{kept.name}', but it has "
                f"{plural(blocks, 'block')}",
                f"write @keep={kept.name}@{blocks} or lower, or make the shot longer",
            )


def _indices(recalled: Sequence[Recalled], firsts: Sequence[int]) -> tuple[int, ...]:
    """The blocks that are recalled, each once. firsts: the first block of every shot so far; a cast file is a block."""
    starts = ((kept.shot if kept.shot < 0 else firsts[kept.shot]) + kept.block - 1 for kept in recalled)
    return tuple(dict.fromkeys(starts))


def _specs(requested: RequestedShot, indices: range, block_frames: int) -> Iterator[BlockSpec]:
    """Yields the blocks of a shot. After a cut, the prompt of the first block has the cut prefix."""
    cuts = requested.number > 1 and not requested.shot.continues
    for index in indices:
        cut = cuts and index == indices[0]
        yield BlockSpec(
            index=index,
            shot=requested.number - 1,
            prompt=cut_prompt(requested.shot.prompt) if cut else requested.shot.prompt,
            cut=cut,
            seed=requested.shot.seed,
            start=index * block_frames,
            frames=block_frames,
        )


def cut_prompt(prompt: str) -> str:
    """The prompt that announces a cut to the model."""
    return prompt if prompt.startswith(CUT_PREFIX) else CUT_PREFIX + prompt


def _nearest(blocks: Fraction) -> int:
    return floor(blocks + Fraction(1, 2))


def _requested_length(requested: RequestedShot, grid: Grid) -> str:
    """Formats the requested length, in the unit of the script and in seconds."""
    seconds = _format_seconds(requested.seconds(grid))
    length = requested.shot.duration
    return seconds if length is None or length.unit == "s" else f"{length} ({seconds})"


def _format_seconds(value: Fraction) -> str:
    return f"{float(value):.2f}".rstrip("0").rstrip(".") + " s"
