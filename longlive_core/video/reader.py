"""A film, whole or torn, back into frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import cast

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import EOFError as EndOfFileError
from av.error import InvalidDataError
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .image_folder import numbered

# What a webm and its clusters begin with. Without a cluster libav takes a header for no film; one at second 0 will do.
WEBM, CLUSTER, SECOND_0 = bytes.fromhex("1a45dfa3"), bytes.fromhex("1f43b675"), bytes.fromhex("83 e78100")


def read_video(path: Path | str) -> Tensor:
    """All frames that a film still plays, `[T, H, W, 3]` uint8; a torn end is left out. T = 0 where there is none.

    `path` is a file, or a folder of numbered pictures.
    """
    path = Path(path)
    pictures: list[NDArray[np.uint8]] = []
    if path.is_dir():
        for picture in numbered(path):
            with Image.open(picture) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        return torch.from_numpy(np.stack(pictures)) if pictures else torch.empty((0, 0, 0, 3), dtype=torch.uint8)
    with open_torn(path) as container:
        stream = container.streams.video[0]
        for frame in _frames(container, stream):
            bt709 = frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709)
            pictures.append(cast("NDArray[np.uint8]", bt709.to_ndarray()))
        if not pictures:
            return torch.empty((0, stream.height, stream.width, 3), dtype=torch.uint8)
    return torch.from_numpy(np.stack(pictures))


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    with suppress(InvalidDataError):
        for packet in container.demux(stream):
            if packet.is_corrupt:  # the torn end of a killed film: decoded, it takes the frames before it along
                break
            yield from stream.decode(packet)
    with suppress(InvalidDataError, EndOfFileError):  # what the decoder still holds then; nothing of a whole film
        yield from stream.decode(None)


def open_torn(path: Path) -> InputContainer:
    """A film, and one that was cut off where libav refuses it: before its first or in the head of a later fragment.

    Raises OSError, and av's own errors for what is no film.
    """
    try:
        return av.open(str(path))
    except (InvalidDataError, EndOfFileError, OSError):
        data = path.read_bytes()
        return av.open(BytesIO(_whole_clusters(data) if data.startswith(WEBM) else _whole_boxes(data)), "r")


def _whole_clusters(data: bytes) -> bytes:
    torn = next((size for size in (3, 2, 1) if data.endswith(CLUSTER[:size])), 0)
    return data[: len(data) - torn] + CLUSTER + SECOND_0


def _whole_boxes(data: bytes) -> bytes:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8 or at + size > len(data):
            break
        at += size
    return data[:at]
