"""Reads a video file of any format as frames at the rate of a film, piece by piece."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import av
import torch
from av.error import FFmpegError, InvalidDataError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from torch import Tensor

from ..types import TIME_FACTOR

# Values of AVColorSpace. Unspecified colours are read as BT.709 from 720 lines on, as BT.601 below.
BT709, UNSPECIFIED = 1, 2
HIGH_DEFINITION = 720


class ClipStopped(Exception):
    """Raised when a stop is requested while a clip is read."""


class Clip:
    """A video resampled to `fps`: each frame is the source frame nearest in time.

    frames: the number of frames at `fps`. A truncated end is left out, as players do. At most four frames, and the
    times of all frames, are in memory.
    """

    def __init__(self, path: Path, fps: int, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Decodes the video once to read the times of its frames. `should_stop` is called for every frame.

        Raises FileNotFoundError, ValueError for a file that is not a video, and ClipStopped.
        """
        self.path = path
        times: list[float] = []
        for frame in self._decoded():
            if should_stop():
                raise ClipStopped
            times.append(len(times) / fps if frame.pts is None else frame.time)
        self._sources = _nearest(times, fps)
        self.frames = len(self._sources)

    def pieces(self, start: int = 0) -> Iterator[Tensor]:
        """Yields `[T, H, W, 3]` uint8 from frame `start` to the end: T is 1, then 4 (the last may be shorter)."""
        frames = self._frames(start)
        size = 1
        while piece := list(islice(frames, size)):
            yield torch.stack(piece)
            size = TIME_FACTOR

    def _frames(self, start: int) -> Iterator[Tensor]:
        # Source frame → number of frames that show it. A source frame may be shown several times or not at all.
        repeats = Counter(self._sources[start:])
        for index, frame in zip(range(max(repeats, default=-1) + 1), self._decoded(), strict=False):
            if index in repeats:
                yield from [_rgb(frame)] * repeats[index]

    def _decoded(self) -> Iterator[VideoFrame]:
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise ValueError(f"{self.path} has no video stream; give a video")
                container.streams.video[0].thread_type = "AUTO"
                with suppress(InvalidDataError):
                    yield from container.decode(container.streams.video[0])
        except FFmpegError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{self.path} cannot be read as a video ({error.strerror})") from error


def _nearest(times: list[float], fps: int) -> list[int]:
    """Returns the index of the nearest source frame for each frame at `fps`; the last source frame lasts as long as the
    one before it."""
    if not times:
        return []
    last = times[-1] - times[-2] if len(times) > 1 else 1 / fps
    indices: list[int] = []
    for number in range(max(1, round((times[-1] + last - times[0]) * fps))):
        time = times[0] + number / fps
        after = min(bisect_left(times, time), len(times) - 1)
        before = max(0, after - 1)
        indices.append(before if time - times[before] <= times[after] - time else after)
    return indices


def _rgb(frame: VideoFrame) -> Tensor:
    """Converts a frame to RGB `[H, W, 3]` uint8 and applies its rotation."""
    high = frame.colorspace == BT709 or (frame.colorspace == UNSPECIFIED and frame.height >= HIGH_DEFINITION)
    colours = Colorspace.ITU709 if high else Colorspace.ITU601
    picture = torch.from_numpy(frame.reformat(format="rgb24", src_colorspace=colours).to_ndarray())
    return picture.rot90(frame.rotation // 90)
