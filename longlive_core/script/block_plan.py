"""From shots to blocks: whole blocks, every rounding reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from math import ceil, floor, isfinite
from typing import TYPE_CHECKING

from ..types import TIME_FACTOR, BlockSpec, video_frames
from .duration import MAX_SECONDS, Length

if TYPE_CHECKING:
    from .shots import Shot

CUT_PREFIX = "The scene transitions. "
DEFAULT_SECONDS = 4


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """What is to be made, block by block; `notes` say in words where it differs from what was asked.

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
        """Length of the whole film."""
        return self.video_frames / self.fps

    @property
    def shots(self) -> int:
        """How many shots the film has, `continue` shots counted."""
        return self.blocks[-1].shot + 1

    def with_first_blocks(self, blocks: tuple[BlockSpec, ...]) -> BlockPlan:
        """This plan with other first blocks: those that were made."""
        return replace(self, blocks=(*blocks, *self.blocks[len(blocks) :]))

    def begins_shot(self, block: BlockSpec) -> bool:
        """Whether a block is the first one of its shot, after a cut or not."""
        return block.index == 0 or self.blocks[block.index - 1].shot != block.shot

    def text(self) -> str:
        """The plan in words: a line for the film, one a shot, then the notes."""
        grid = Grid(Fraction(self.fps), self.block_frames)
        lines = [f"{self.shots} shots, {len(self.blocks)} blocks, {self.video_frames} frames, {self.seconds:.2f} s"]
        for shot, blocks in groupby(self.blocks, key=lambda block: block.shot):
            run = list(blocks)
            first, last = run[0].index, run[-1].index + 1
            start, end = (_format_seconds(grid.seconds(0, index)) for index in (first, last))
            lines.append(f"shot {shot + 1}: {start} to {end}, {last - first} blocks: {run[0].prompt}")
        return "\n".join([*lines, *self.notes])

    def then(self, other: BlockPlan, cut: bool = True) -> BlockPlan:
        """This film and, after a cut, the other: one film. Raises ValueError where their rasters differ.

        cut: false lets the other go on in the same scene, as a shot that says `continue` does.
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
            )
            for block in other.blocks
        ]
        return replace(self, blocks=(*self.blocks, *added), notes=other.notes)


@dataclass(frozen=True, slots=True)
class Grid:
    """The raster of blocks: k blocks are k·unit - 3 video frames, because the first latent frame is a single one."""

    fps: Fraction
    block_frames: int

    @property
    def unit(self) -> int:
        """Video frames of every block but the film's first."""
        return self.block_frames * TIME_FACTOR

    def frame_at(self, time: Length) -> Fraction:
        """The video frame at which `time`, counted from the film's start, has passed."""
        frames = time.frames(self.fps, self.unit)
        return max(frames - (TIME_FACTOR - 1), Fraction(0)) if time.unit == "blocks" else frames

    def blocks(self, frames: Fraction) -> Fraction:
        """The blocks, as a fraction, in the film's first `frames` video frames."""
        return (frames + TIME_FACTOR - 1) / self.unit if frames else Fraction(0)

    def seconds(self, first: int, last: int) -> Fraction:
        """Length of the blocks from `first` up to, without, `last`."""
        return (video_frames(last * self.block_frames) - video_frames(first * self.block_frames)) / self.fps


@dataclass(frozen=True, slots=True)
class RequestedShot:
    """A shot as the script wants it, from video frame `start` to `end` of the film as written.

    `absolute`: bound to times of the film rather than given a length. `unspecified`: its length was left to us.
    """

    shot: Shot
    number: int
    start: Fraction
    end: Fraction
    absolute: bool = False
    unspecified: bool = False

    def blocks(self, grid: Grid) -> Fraction:
        """The length in blocks, as a fraction."""
        return grid.blocks(self.end) - grid.blocks(self.start)

    def seconds(self, grid: Grid) -> Fraction:
        return (self.end - self.start) / grid.fps


def make_plan(
    shots: Sequence[Shot], fps: float, block_frames: int, notes: Sequence[str], default_seconds: float
) -> BlockPlan:
    """Lay the shots on the raster of blocks; see ShotScript.plan."""
    if not (isfinite(fps) and fps > 0 and block_frames > 0):
        raise ValueError(f"fps is {fps:g} and block_frames {block_frames}; both must be numbers above zero")
    if not 0 < default_seconds <= MAX_SECONDS:
        raise ValueError(f"the default shot length is {default_seconds:g} s; it must be above 0 and at most 24 h")
    grid = Grid(Fraction(fps), block_frames)
    said = list(notes)
    blocks: list[BlockSpec] = []
    for requested in _requested_shots(shots, grid, said, Fraction(default_seconds)):
        first = len(blocks)
        last = first + _count(requested, grid, first, len(shots))
        if grid.seconds(0, last) > MAX_SECONDS:
            remedy = "make shots shorter or split the film in two scripts"
            raise requested.shot.source.error(f"with shot {requested.number} the film is longer than 24 h", remedy)
        planned = grid.seconds(first, last)
        if planned != requested.seconds(grid) and not requested.unspecified:
            what = f"{last - first} block{'s' if last - first > 1 else ''}"
            length = _requested_length(requested, grid)
            said.append(f"shot {requested.number}: {length} becomes {what}, {_format_seconds(planned)}")
        blocks += _specs(requested, range(first, last), block_frames)
    return BlockPlan(tuple(blocks), fps, block_frames, tuple(said))


def _requested_shots(shots: Sequence[Shot], grid: Grid, notes: list[str], default: Fraction) -> Iterator[RequestedShot]:
    """Where each shot lies as written; a shot without a length lasts until the next one's start time, if it has one."""
    clock = Fraction(0)
    for number, (shot, following) in enumerate(zip(shots, [*shots[1:], None], strict=True), 1):
        start = clock
        if shot.start is not None:
            start = grid.frame_at(shot.start)
            _check_start(shot, number, start, clock, grid, notes)
        until = following.start if following is not None else None
        if shot.duration is not None and shot.start is not None:
            requested = RequestedShot(shot, number, start, grid.frame_at(shot.start + shot.duration), absolute=True)
        elif shot.duration is not None:
            end = grid.frame_at(shot.duration) if start == 0 else start + shot.duration.frames(grid.fps, grid.unit)
            requested = RequestedShot(shot, number, start, end)
        elif until is not None and grid.frame_at(until) > start:
            requested = RequestedShot(shot, number, start, grid.frame_at(until), absolute=True)
        else:
            requested = RequestedShot(shot, number, start, start + default * grid.fps, unspecified=True)
        yield requested
        clock = requested.end


def _check_start(shot: Shot, number: int, start: Fraction, clock: Fraction, grid: Grid, notes: list[str]) -> None:
    """Times that miss each other by half a block are a mistake; by less, they are the raster's."""
    if start == clock:
        return
    before = (
        f"shot {number - 1} ends at {_format_seconds(clock / grid.fps)}" if number > 1 else "the film starts at 0 s"
    )
    message = f"shot {number} starts at {shot.start}, but {before}"
    if abs(start - clock) * 2 > grid.unit:
        remedy = "make the times meet, or write a length in round brackets, as in (4s)"
        raise shot.source.error(message, remedy)
    notes.append(message)


def _count(requested: RequestedShot, grid: Grid, first: int, shots: int) -> int:
    """Blocks of a shot: the nearest whole number. On the clock both ends are rounded, so that errors do not add up."""
    asked = requested.blocks(grid)
    if asked * 2 < 1 and not requested.unspecified:
        least = grid.seconds(first, first + 1)
        neighbour = requested.number - 1 if requested.number > 1 else 2
        merge = f" or merge it with shot {neighbour}" if shots > 1 else ""
        raise requested.shot.source.error(
            f"shot {requested.number} asks for {_requested_length(requested, grid)}; the shortest shot is one block, "
            f"{_format_seconds(least)} at {float(grid.fps):g} fps",
            f"use {ceil(least * 10) / 10:g} s{merge}",
        )
    if requested.absolute:
        return max(1, _nearest(grid.blocks(requested.end)) - _nearest(grid.blocks(requested.start)))
    return max(1, _nearest(asked))


def _specs(requested: RequestedShot, indices: range, block_frames: int) -> Iterator[BlockSpec]:
    """The blocks of a shot; a cut is announced to the model by a prefix to the shot's first prompt, and only there."""
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
    """The length in the words of the script where it was not given in seconds."""
    seconds = _format_seconds(requested.seconds(grid))
    length = requested.shot.duration
    return seconds if length is None or length.unit == "s" else f"{length} ({seconds})"


def _format_seconds(value: Fraction) -> str:
    return f"{float(value):.2f}".rstrip("0").rstrip(".") + " s"
