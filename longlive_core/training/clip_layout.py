"""How the frames of a video become training clips of whole blocks, so that prompts and cuts begin with a block.

A training clip is encoded as a film of its own: its first block has 29 video frames, later ones have 32. What makes no
block at the end of a shot is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt

from ..script.block_plan import cut_prompt
from ..types import BLOCK_FRAMES, FPS, SPACE_FACTOR, TIME_FACTOR, round_to, video_frames
from .clip_files import ClipShot

UNIT = BLOCK_FRAMES * TIME_FACTOR
FIRST = video_frames(BLOCK_FRAMES)
SIDE = 2 * SPACE_FACTOR  # sides of a film are multiples of it


@dataclass(frozen=True, slots=True)
class ClipBlock:
    """A block of a training clip: `frames` frames of its video from `start` on, at 24 fps, and its prompt."""

    start: int
    frames: int
    prompt: str
    cut: bool


Layout = tuple[ClipBlock, ...]


def lay_out(shots: Sequence[ClipShot], frames: int, blocks: int) -> tuple[Layout, ...]:
    """Divides a video of `frames` frames at 24 fps into training clips of at most `blocks` blocks.

    A shot that is shorter than a block is left out. Returns nothing if all are. Raises ValueError if a shot ends after
    the video.
    """
    clips: list[Layout] = []
    clip: list[ClipBlock] = []
    for run in _runs(shots):
        at, end = run[0].start, min(frames, _end(run, frames))
        while at + (size := UNIT if clip else FIRST) <= end:
            cut = bool(clip) and run[0].cut and at == run[0].start
            prompt = _shot_at(run, at + size // 2).prompt
            clip.append(ClipBlock(at, size, cut_prompt(prompt) if cut else prompt, cut))
            at += size
            if len(clip) == blocks:
                clips.append(tuple(clip))
                clip = []
    return (*clips, tuple(clip)) if clip else tuple(clips)


def bucket(height: int, width: int, area: int) -> tuple[int, int]:
    """The (height, width) for a video of another size: multiples of 32 near its aspect ratio and near `area` pixels."""
    scale = sqrt(area / (height * width))
    return round_to(round(height * scale), SIDE), round_to(round(width * scale), SIDE)


def _runs(shots: Sequence[ClipShot]) -> Iterator[list[ClipShot]]:
    """The shots of a video between its cuts."""
    run: list[ClipShot] = []
    for shot in shots:
        if shot.cut and run:
            yield run
            run = []
        run.append(shot)
    yield run


def _end(run: Sequence[ClipShot], frames: int) -> int:
    end = run[-1].end
    if end is None and run[-1].start < frames:
        return frames
    # Lengths are often rounded to whole seconds.
    if end is None or end > frames + UNIT // 2:
        last = run[-1].start if end is None else end
        raise ValueError(
            f"its script goes on to {last / FPS:.2f} s, but the video ends at {frames / FPS:.2f} s; write the times of "
            "the video"
        )
    return end


def _shot_at(run: Sequence[ClipShot], frame: int) -> ClipShot:
    return next(shot for shot in reversed(run) if shot.start <= frame or shot is run[0])
