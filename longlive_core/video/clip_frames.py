"""The frames of a video of any format with their times; each is converted to pixels only if it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageSequence, UnidentifiedImageError
from torch import Tensor

from .colour import colour_notes, to_bt709
from .deinterlace import NOTE as DEINTERLACED
from .deinterlace import Deinterlacer

Source: TypeAlias = Path | BytesIO
# Pictures that a file carries beside its video.
NOT_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# Codecs of a cover that is not marked as one; also of a video, if there is no other.
PICTURES: Final = ("mjpeg", "png", "bmp")
# Animations are read with pillow, which composes transparent frames; libav reads no animated webp.
ANIMATIONS: Final = ("WEBP", "GIF", "PNG")
# Browsers show a frame of a GIF for 100 ms if it says less than 20.
SHORTEST_GIF_MS, DEFAULT_GIF_MS = 20, 100
# Pixels further from square are taken as a damaged tag.
MOST_ANAMORPHIC: Final = 8


class SourceFrame(NamedTuple):
    """A frame that is shown from `time` to `end` in s. pixels: returns `[H, W, 3]` uint8, upright, with square pixels.
    notes: returns what is special about it."""

    time: float
    end: float
    pixels: Callable[[], Tensor]
    notes: Callable[[], list[str]]


def read_source(source: Source) -> Iterator[SourceFrame]:
    """Yields the frames of a video or an animation, in order of time; a truncated end is left out.

    Raises FileNotFoundError, and ValueError for a file that is not a video.
    """
    if isinstance(source, Path) and source.exists() and not (source.is_file() or source.is_dir()):
        raise ValueError(f"{source} is no regular file, and a video is read twice; copy it to a disk first")
    try:
        animation = _open_animation(source)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name_of(source)} cannot be read as a video ({error})") from error
    if animation is not None:
        with animation:
            yield from _read_animation(animation)
        return
    with open_source(source) as container:
        stream = _main_video(container)
        if stream is None:
            raise ValueError(f"{name_of(source)} has no video stream; give a video")
        stream.thread_type = "AUTO"
        end, whole = 0.0, Deinterlacer(stream)
        for frame in _decode(container, stream, whole):
            time = end if frame.pts is None else frame.time
            seconds = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
            end = time + seconds
            pixels = partial(_upright, frame, stream.sample_aspect_ratio)
            yield SourceFrame(time, end, pixels, partial(_frame_notes, frame, whole.active))


def is_animation(source: Source) -> bool:
    """Whether a file is an animated webp, gif or png, which has no sound."""
    animation = _open_animation(source)
    if animation is not None:
        animation.close()
    return animation is not None


def name_of(source: Source) -> str:
    """The name of a source for messages."""
    return str(source) if isinstance(source, Path) else "the video"


def open_source(source: Source) -> InputContainer:
    """Opens a source with libav. Raises FileNotFoundError, and ValueError for a file that is not a video."""
    if isinstance(source, BytesIO):
        source.seek(0)
    try:
        # libav takes what stands before a colon for a protocol, but not in an absolute path.
        return av.open(source if isinstance(source, BytesIO) else str(source.absolute()), "r")
    except FileNotFoundError:
        raise
    except FFmpegError as error:
        raise ValueError(f"{name_of(source)} cannot be read as a video ({error.strerror})") from error


def _main_video(container: InputContainer) -> VideoStream | None:
    """The largest video stream, a default one first; None if there are only covers."""

    def rank(stream: VideoStream) -> tuple[bool, bool, int]:
        is_default = bool(stream.disposition & Disposition.default)
        return stream.codec_context.name not in PICTURES, is_default, stream.width * stream.height

    streams = [stream for stream in container.streams.video if not stream.disposition & NOT_VIDEO]
    return max(streams, key=rank, default=None)


def _decode(container: InputContainer, stream: VideoStream, whole: Deinterlacer) -> Iterator[VideoFrame]:
    try:
        yield from whole.frames(_undamaged(container, stream))
    except FFmpegError as error:
        raise ValueError(f"{container.name} cannot be read as a video ({error.strerror})") from error


def _undamaged(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    with suppress(InvalidDataError):
        yield from container.decode(stream)


def _upright(frame: VideoFrame, aspect: Fraction | None) -> Tensor:
    """Converts a frame to pixels as they are shown: square ones, turned by the display matrix."""
    width, height = frame.width, frame.height
    if aspect and 1 / MOST_ANAMORPHIC <= aspect <= MOST_ANAMORPHIC:
        # The longer side of a pixel is interpolated, so that no line or column is lost.
        width, height = round(width * max(1, aspect)), round(height * max(1, 1 / aspect))
    pixels = to_bt709(frame, width, height)
    if (side_data := frame.side_data.get("DISPLAYMATRIX")) is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].astype(int)
    if abs(a) + abs(d) < abs(b) + abs(c):  # (x, y) is shown at (cy, bx)
        pixels, a, d = pixels.transpose(0, 1), c, b
    return pixels.flip([dim for dim, sign in enumerate((d, a)) if sign < 0]).contiguous()


def _frame_notes(frame: VideoFrame, deinterlaced: bool) -> list[str]:
    return [*colour_notes(frame), *([DEINTERLACED] if deinterlaced else [])]


def _open_animation(source: Source) -> Image.Image | None:
    """Opens a file of several pictures; None for any other file."""
    if isinstance(source, BytesIO):
        source.seek(0)
    try:
        image = Image.open(source, formats=ANIMATIONS)
    except (UnidentifiedImageError, OSError, SyntaxError):
        return None
    if getattr(image, "is_animated", False):
        return image
    image.close()
    return None


def _read_animation(animation: Image.Image) -> Iterator[SourceFrame]:
    time, gif = 0.0, animation.format == "GIF"
    with suppress(EOFError, OSError, SyntaxError):  # a truncated end
        for image in ImageSequence.Iterator(animation):
            image.load()
            shown = float(image.info.get("duration") or 0)
            shown = DEFAULT_GIF_MS if gif and shown < SHORTEST_GIF_MS else shown
            rgba = image.convert("RGBA")
            yield SourceFrame(time, time + shown / 1000, partial(_on_black, rgba), partial(_alpha_notes, rgba))
            time += shown / 1000


def _on_black(rgba: Image.Image) -> Tensor:
    black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
    return torch.from_numpy(np.array(Image.alpha_composite(black, rgba).convert("RGB")))


def _alpha_notes(rgba: Image.Image) -> list[str]:
    opaque = rgba.getchannel("A").getextrema() == (255, 255)
    return [] if opaque else ["the video is transparent in parts: they are black"]
