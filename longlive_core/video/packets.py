"""Reads the encoded frames of a finished film, so that a new film can copy them without encoding them again."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from av.error import InvalidDataError
from PIL import Image

from .image_folder import numbered_pictures
from .reader import open_truncated

# In mp4 the NAL units of these codecs have length prefixes (AVCC); the muxer expects start codes (Annex B).
LENGTH_PREFIXED = ("h264", "h265")


class EncodedFrame(NamedTuple):
    """One encoded frame. key: whether decoding can start here."""

    data: bytes
    key: bool


class Format(NamedTuple):
    """What two films must share so that one can copy frames of the other. rate: frames per second, or None."""

    codec: str
    width: int
    height: int
    rate: Fraction | None
    pixels: str
    encoder: bytes = b""  # codec tag and extradata: the settings of the encoder


class PacketSource:
    """A finished or truncated film: a file written by `VideoWriter` or a folder of pictures.

    `frames` is the number of complete frames. `keys` are the frames at which decoding can start, which include the
    first frame of every block. The film is read while it is copied, so the new film needs another path. The file stays
    open from the first call of `pieces` until `close`.
    """

    def __init__(self, path: Path | str) -> None:
        """Reads the film once without decoding it. Raises OSError if it cannot be read."""
        self.path = Path(path)
        self.format = film_format(self.path)
        keys = [frame.key for frame in _frames(self.path)]
        self.frames = len(keys)
        self.keys = frozenset(number for number, key in enumerate(keys) if key)
        self._reader: Generator[EncodedFrame, None, None] | None = None  # yields the frames from number `_at` on
        self._at = 0

    def can_cut(self, frame: int) -> bool:
        """Returns whether `pieces` can start or stop at this frame."""
        return frame in self.keys or frame == self.frames

    def pieces(self, start: int, stop: int) -> Iterator[EncodedFrame]:
        """Yields frames [start, stop). Calls in the order of the film read the file once.

        Raises ValueError, before the first frame, unless `start` is a key frame and `stop` is a key frame or the end.
        """
        if not (self.can_cut(start) and self.can_cut(stop)):
            near = ", ".join(str(key) for key in sorted(self.keys) if min(abs(key - start), abs(key - stop)) <= 64)
            raise ValueError(
                f"{self.path}: frames {start} to {stop} of {self.frames} cannot be copied alone; start and stop at "
                f"a key frame{near and f' (near: {near})'} or the end"
            )
        if stop < start:
            raise ValueError(f"{self.path}: frames {start} to {stop} are empty: the start must come before the stop")
        return self._read(start, stop)

    def close(self) -> None:
        """Closes the file."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _read(self, start: int, stop: int) -> Iterator[EncodedFrame]:
        if self._reader is None or start < self._at:
            self.close()
            self._reader, self._at = _frames(self.path), 0
        while self._at < stop and (frame := next(self._reader, None)) is not None:
            self._at += 1
            if self._at > start:
                prefixed = self.format.codec in LENGTH_PREFIXED
                yield frame._replace(data=_with_start_codes(frame.data)) if prefixed else frame


def film_format(path: Path) -> Format:
    """Returns the format of a film from its header or its first picture. Raises OSError."""
    if path.is_dir():
        first = next(numbered_pictures(path), None)
        if first is None:
            raise FileNotFoundError(f"{path} holds no numbered pictures")
        with Image.open(first) as image:
            return Format("png", image.width, image.height, None, image.mode)
    with open_truncated(path) as container:
        stream = container.streams.video[0]
        context, rate = stream.codec_context, stream.average_rate or stream.guessed_rate
        name = context.codec.canonical_name
        return Format(
            "h265" if name == "hevc" else name,
            context.width,
            context.height,
            None if rate is None else Fraction(rate).limit_denominator(1001),
            # PyAV 17 crashes on `pix_fmt` of a stream that has a header only.
            str(context.format and context.format.name),
            context.codec_tag.encode() + (context.extradata or b""),
        )


def differences(old: Format, film: Format) -> list[str]:
    """Returns messages on the differences that prevent copying frames of `old` into `film`; empty if there are none."""
    others = [
        f"{name} {was} (this film: {now})"
        for name, was, now in (
            ("codec", old.codec, film.codec),
            ("size", f"{old.width}x{old.height}", f"{film.width}x{film.height}"),
            ("frames per second", old.rate, film.rate),
            ("pixels", old.pixels, film.pixels),
        )
        if was != now
    ]
    # Other codecs or sizes imply other encoder settings, which are reported only if nothing else differs.
    settings = ["other encoder settings (quality or version)"] if old.encoder != film.encoder else []
    return others or settings


def _frames(path: Path) -> Generator[EncodedFrame, None, None]:
    """Yields the frames as stored: the files of a folder, or the packets of a file up to a truncated end."""
    if path.is_dir():
        yield from (EncodedFrame(file.read_bytes(), True) for file in numbered_pictures(path))
        return
    with open_truncated(path) as container, suppress(InvalidDataError):
        for packet in container.demux(container.streams.video[0]):
            if packet.is_corrupt:
                return
            if packet.size:
                yield EncodedFrame(bytes(packet), packet.is_keyframe)


def _with_start_codes(data: bytes) -> bytes:
    """Replaces the 4-byte length prefix of every NAL unit by a start code."""
    stream, at = bytearray(), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        stream += b"\0\0\0\1" + data[at + 4 : at + 4 + size]
        at += 4 + size
    return bytes(stream)
