"""Reads a video file of any format as frames at the rate of a film, piece by piece."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Final

import torch
from torch import Tensor

from ..types import TIME_FACTOR
from .audio import Audio
from .clip_frames import Source, name_of, read_source
from .clip_sound import read_sound, sound_notes

# Rates that differ by less are the same; steps between frames that differ by more are a variable rate.
SAME_RATE: Final = 0.0005
VARIABLE: Final = 1.2
# Time stamps are often in whole milliseconds.
STAMP: Final = 0.0015
ROUNDING: Final = 1e-6


class ClipStopped(Exception):
    """Raised when a stop is requested while a clip is read."""


class Clip:
    """A video resampled to `fps`: each frame is the source frame nearest in time, so that the speed is unchanged.

    Frames are upright, with square pixels, in BT.709. frames: the number of frames at `fps`. notes: what was changed or
    left out. A truncated end is left out, as players do. At most four frames, and the times of all frames, are in
    memory.
    """

    def __init__(
        self,
        source: Source,
        fps: float,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        start: float = 0.0,
        duration: float = 0.0,
    ) -> None:
        """Decodes the video once to read the times of its frames.

        should_stop: called for every frame, and in `sound` for every piece of sound.

        start, duration: the part of the video to read, in s; a duration of 0 reads to the end.

        Raises FileNotFoundError, ValueError for a file that is not a video, and ClipStopped.
        """
        self._source, self._fps, self._should_stop = source, fps, should_stop
        times, ends, notes = list[float](), list[float](), dict[str, None]()
        for frame in read_source(source):
            self._check_stop()
            # A time stamp that goes back belongs to a frame that is shown late.
            times.append(max(frame.time, times[-1]) if times else frame.time)
            ends.append(frame.end)
            if len(times) == 1 or not notes:
                notes |= dict.fromkeys(frame.notes())
        if not times:
            raise ValueError(f"{name_of(source)} has no frame that can be read; give a video")
        self._start = times[0] + start
        end = _end(times, ends, 1 / fps)
        self._end = min(end, self._start + duration) if duration else end
        self._sources = _nearest(times, fps, self._start, self._end)
        self.frames = len(self._sources)
        self.notes = [*notes, *_rate_notes(times, end, fps), *sound_notes(source)]

    def pieces(self, start: int = 0) -> Iterator[Tensor]:
        """Yields `[T, H, W, 3]` uint8 from frame `start` to the end: T is 1, then 4 (the last may be shorter)."""
        frames = self._frames(start)
        size = 1
        while piece := list(islice(frames, size)):
            yield torch.stack(piece)
            size = TIME_FACTOR

    def sound(self, start: int = 0) -> Audio | None:
        """The sound from frame `start` to the end of the clip; None if there is none. Raises ClipStopped."""
        return read_sound(self._source, self._start + start / self._fps, self._end, self._check_stop)

    def _check_stop(self) -> None:
        if self._should_stop():
            raise ClipStopped

    def _frames(self, start: int) -> Iterator[Tensor]:
        # Source frame → number of frames that show it. A source frame may be shown several times or not at all.
        repeats = Counter(self._sources[start:])
        for index, frame in zip(range(max(repeats, default=-1) + 1), read_source(self._source), strict=False):
            if index in repeats:
                yield from [frame.pixels()] * repeats[index]


def nearest_frames(count: int, rate: float, fps: float) -> list[int]:
    """For each frame at `fps`, the frame that is nearest in time among `count` frames at a constant `rate`."""
    return _nearest([number / rate for number in range(count)], fps, 0.0, count / rate)


def speed_note(rate: float, fps: float) -> str:
    """What is said of a video whose rate is not that of the film; empty if it is."""
    if abs(rate / fps - 1) < SAME_RATE:
        return ""
    return f"the video has {rate:.5g} frames per second: read at {fps:g} frames per second by time, at unchanged speed"


def _end(times: Sequence[float], ends: Sequence[float], step: float) -> float:
    """When the last frame ends: as it says, else after as long as the one before it."""
    if ends[-1] > times[-1]:
        return ends[-1]
    return times[-1] + (times[-1] - times[-2] if len(times) > 1 else step)


def _nearest(times: Sequence[float], fps: float, start: float, end: float) -> list[int]:
    """The index of the source frame that is nearest in time, for each frame at `fps` from `start` to `end` in s."""
    indices: list[int] = []
    for number in range(max(1, round((end - start) * fps))):
        time = start + number / fps
        after = min(bisect_left(times, time), len(times) - 1)
        before = max(0, after - 1)
        # A slow frame is shown for as long as it says: the next one is taken at most a frame early.
        early = times[after] - time
        nearer = early < time - times[before] and early <= 1 / fps + ROUNDING
        indices.append(after if nearer or times[before] > time else before)
    return indices


def _rate_notes(times: Sequence[float], end: float, fps: float) -> list[str]:
    if len(times) < 2 or times[-1] <= times[0]:
        return []
    steps = sorted(after - before for before, after in pairwise(times))
    if steps[-1] > VARIABLE * steps[0] + STAMP:
        return [
            f"the video has a variable rate, {len(times) / (end - times[0]):.4g} frames per second on average: read at "
            f"{fps:g} frames per second by time, at unchanged speed"
        ]
    rate = (len(times) - 1) / (times[-1] - times[0])
    for known in (max(1, round(rate)), fps):
        if abs((len(times) - 1) / known - (times[-1] - times[0])) < STAMP:
            rate = known
    return [note] if (note := speed_note(rate, fps)) else []
