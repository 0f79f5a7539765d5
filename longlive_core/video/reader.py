"""Reads the frames of a film, complete or truncated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from itertools import islice
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

from .colour import ACCURATE_RGB
from .image_folder import numbered_pictures

# The ids of an EBML header and a cluster, and the size and timestamp (0) of an empty cluster. libav refuses a webm
# without a cluster, so one is appended to a truncated file.
WEBM, CLUSTER, AT_ZERO = bytes.fromhex("1a45dfa3"), bytes.fromhex("1f43b675"), bytes.fromhex("83 e78100")


def has_sound(path: Path | str) -> bool:
    """Returns whether a film's file has sound. Raises OSError."""
    with av.open(str(path)) as container:
        return bool(container.streams.audio)


def read_video(path: Path | str) -> Tensor:
    """Returns all complete frames of a film, `[T, H, W, 3]` uint8; T is 0 if there is none.

    `path` is a file, or a folder of numbered pictures.
    """
    pictures = list(read_frames(path))
    if pictures:
        return torch.from_numpy(np.stack(pictures))
    height = width = 0
    if not Path(path).is_dir():
        with open_truncated(Path(path)) as container:
            height, width = container.streams.video[0].height, container.streams.video[0].width
    return torch.empty((0, height, width, 3), dtype=torch.uint8)


def read_frames(path: Path | str, start: int = 0, stop: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """Yields the complete frames of a film, `[H, W, 3]` uint8, for films that are larger than memory.

    `path` is a file, or a folder of numbered pictures. start, stop: of the frames; another start than 0 is a key frame
    of a film that `VideoWriter` wrote, see `PacketSource`. What is before it is not decoded.
    """
    path = Path(path)
    if path.is_dir():
        for picture in islice(numbered_pictures(path), start, stop):
            with Image.open(picture) as image:
                yield np.asarray(image.convert("RGB"))
        return
    with open_truncated(path) as container:
        for frame in _frames(container, container.streams.video[0], start, stop):
            bt709 = frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709, interpolation=ACCURATE_RGB)
            yield cast("NDArray[np.uint8]", bt709.to_ndarray())


def _frames(container: InputContainer, stream: VideoStream, start: int, stop: int | None) -> Iterator[VideoFrame]:
    with suppress(InvalidDataError):
        for number, packet in enumerate(container.demux(stream)):
            # The truncated end of a film is corrupt: decoding it would corrupt the frames before it.
            if packet.is_corrupt or number == stop:
                break
            if number >= start:
                yield from stream.decode(packet)
    with suppress(InvalidDataError, EndOfFileError):  # flush the decoder after the break; a complete film is flushed
        yield from stream.decode(None)


def open_truncated(path: Path) -> InputContainer:
    """Opens a film, even if it is truncated where libav refuses it: before the first fragment, in a fragment header or
    in its index.

    Raises OSError, and av's errors for a file that is not a film.
    """
    with suppress(InvalidDataError, EndOfFileError, OSError):
        if not _index_is_cut(path):
            return av.open(str(path.absolute()), "r")
    data = path.read_bytes()
    return av.open(BytesIO(_whole_clusters(data) if data.startswith(WEBM) else _whole_boxes(data)), "r")


def _index_is_cut(path: Path) -> bool:
    """Whether an mp4 or mov was complete and has lost a part of its end, which holds the index of all frames."""
    at, length = 0, path.stat().st_size
    with path.open("rb") as file:
        # A complete film has four boxes: ftyp, free, mdat and moov.
        for _ in range(4):
            file.seek(at)
            head = file.read(16)
            size, kind = int.from_bytes(head[:4], "big"), head[4:8]
            size = int.from_bytes(head[8:], "big") if size == 1 else size
            if size < 8 or kind not in (b"ftyp", b"free", b"wide", b"mdat", b"moov"):
                return False
            at += size
            if at > length:
                return kind in (b"mdat", b"moov")
    return False


def _whole_clusters(data: bytes) -> bytes:
    """Removes a truncated cluster id from the end of a webm and appends an empty cluster."""
    torn = next((size for size in (3, 2, 1) if data.endswith(CLUSTER[:size])), 0)
    return data[: len(data) - torn] + CLUSTER + AT_ZERO


def _whole_boxes(data: bytes) -> bytes:
    """Removes a truncated box from the end of an mp4 or mov, and makes one that was complete fragmented again.

    In a complete film all fragments are the contents of one mdat box, whose header replaced that of an empty box.
    """
    film, at = bytearray(data), 0
    while at + 8 <= len(film):
        size, kind = int.from_bytes(film[at : at + 4], "big"), bytes(film[at + 4 : at + 8])
        header = 16 if size == 1 else 8
        if kind == b"mdat" and bytes(film[at + header + 4 : at + header + 8]) in (b"ftyp", b"moov"):
            film[at : at + 8] = header.to_bytes(4, "big") + b"free"
            size = header
        if size < 8 or at + size > len(film):
            break
        at += size
    return bytes(film[:at])
