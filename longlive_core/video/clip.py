"""A video file of any kind as frames at a film's rate, piece by piece."""

from __future__ import annotations

from bisect import bisect_left
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

# As AVColorSpace counts them. What says nothing is taken for high-definition video from 720 lines on.
BT709, UNSAID = 1, 2
HIGH_DEFINITION = 720


class ClipStopped(Exception):
    """A stop was asked for while the clip was read."""


class Clip:
    """The pictures of a video at `fps`: at each moment the one that is nearest in time. `frames` says how many.

    What is torn off at its end is left out, as players do. Held in memory are four pictures and the time of each.
    """

    def __init__(self, path: Path, fps: int, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Reads the video once, for its times.

        Raises FileNotFoundError, ValueError for what is no video, and ClipStopped.
        """
        self.path = path
        times: list[float] = []
        for frame in self._decoded():
            if should_stop():
                raise ClipStopped
            times.append(len(times) / fps if frame.pts is None else frame.time)
        self._sources = _nearest(times, fps)

    @property
    def frames(self) -> int:
        return len(self._sources)

    def pieces(self, start: int = 0) -> Iterator[Tensor]:
        """From frame `start` to the end: one frame, then four at a time (the last piece may have fewer), `[T, H, W, 3]`
        uint8."""
        frames = self._frames(start)
        size = 1
        while piece := list(islice(frames, size)):
            yield torch.stack(piece)
            size = TIME_FACTOR

    def _frames(self, start: int) -> Iterator[Tensor]:
        sources = iter(self._sources[start:])
        wanted = next(sources, None)
        for index, frame in enumerate(self._decoded()):
            picture = _rgb(frame) if wanted == index else None
            while picture is not None and wanted == index:
                yield picture
                wanted = next(sources, None)
            if wanted is None:
                return

    def _decoded(self) -> Iterator[VideoFrame]:
        try:
            with av.open(str(self.path)) as container:
                if not container.streams.video:
                    raise ValueError(f"{self.path} has no pictures; give a video")
                container.streams.video[0].thread_type = "AUTO"
                with suppress(InvalidDataError):
                    yield from container.decode(container.streams.video[0])
        except FFmpegError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"{self.path} cannot be read as a video ({error.strerror})") from error


def _nearest(times: list[float], fps: int) -> list[int]:
    """For each frame at `fps` the source frame, of these times, that is nearest; the last lasts as the one before."""
    if not times:
        return []
    last = times[-1] - times[-2] if len(times) > 1 else 1 / fps
    found: list[int] = []
    for number in range(max(1, round((times[-1] + last - times[0]) * fps))):
        moment = times[0] + number / fps
        after = min(bisect_left(times, moment), len(times) - 1)
        before = max(0, after - 1)
        found.append(before if moment - times[before] <= times[after] - moment else after)
    return found


def _rgb(frame: VideoFrame) -> Tensor:
    """`[H, W, 3]` uint8, upright."""
    high = frame.colorspace == BT709 or (frame.colorspace == UNSAID and frame.height >= HIGH_DEFINITION)
    colours = Colorspace.ITU709 if high else Colorspace.ITU601
    picture = torch.from_numpy(frame.reformat(format="rgb24", src_colorspace=colours).to_ndarray())
    return picture.rot90(frame.rotation // 90)
