"""The frames of a film made before, as they are compressed: what a new film copies instead of encoding it again."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from av.error import InvalidDataError
from PIL import Image

from .image_folder import numbered
from .reader import open_torn

# Their packets in a file begin with their length; encoders, and the muxer, take start codes.
WITH_LENGTHS = ("h264", "h265")


class DecodedFrame(NamedTuple):
    """One compressed frame. key: decoding can begin here."""

    data: bytes
    key: bool


class Format(NamedTuple):
    """What two films have in common whose frames may follow one another. rate: frames a second; None for pictures."""

    codec: str
    width: int
    height: int
    rate: Fraction | None
    pixels: str
    encoder: bytes = b""  # what the container keeps of the encoder's settings


class PacketSource:
    """A film made before, whole or torn: a file of `VideoWriter`'s or a folder of pictures.

    `frames` are whole, `keys` those of them that decoding can begin with: the first of every block among them. It is
    read while it is copied: the new film needs another name. Its file is open until `close` where pieces were drawn.
    """

    def __init__(self, path: Path | str) -> None:
        """Looks through the film once, decoding nothing. Raises OSError where it cannot be read."""
        self.path = Path(path)
        self.format = film_format(self.path)
        if self.path.is_dir():
            keys = [True for _ in numbered(self.path)]
        else:
            keys = [piece.key for piece in _packets(self.path)]
        self.frames = len(keys)
        self.keys = frozenset(number for number, key in enumerate(keys) if key)
        self._rest: Generator[DecodedFrame, None, None] | None = None  # the frames from number `_at` on
        self._at = 0

    def can_cut(self, frame: int) -> bool:
        """Whether pieces can begin or end before this frame."""
        return frame in self.keys or frame == self.frames

    def pieces(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        """Frames [start, stop), read while they are drawn; drawn in the film's order, it is read once.

        Raises ValueError, at once, unless `start` is a key frame and `stop` is one or the end.
        """
        if not (self.can_cut(start) and self.can_cut(stop)):
            near = ", ".join(str(key) for key in sorted(self.keys) if min(abs(key - start), abs(key - stop)) <= 64)
            raise ValueError(
                f"{self.path}: frames {start} to {stop} of {self.frames} cannot be copied alone; begin and end at "
                f"a key frame{near and f' (near: {near})'} or the end"
            )
        if stop < start:
            raise ValueError(f"{self.path}: frames {start} to {stop} are none; name the first one first")
        return self._drawn(start, stop)

    def close(self) -> None:
        """Lets go of the file."""
        if self._rest is not None:
            self._rest.close()
        self._rest = None

    def _drawn(self, start: int, stop: int) -> Iterator[DecodedFrame]:
        if self._rest is None or start < self._at:
            self.close()
            self._rest, self._at = self._all(), 0
        while self._at < stop and (piece := next(self._rest, None)) is not None:
            self._at += 1
            if self._at > start:
                yield piece

    def _all(self) -> Generator[DecodedFrame, None, None]:
        if self.path.is_dir():
            yield from (DecodedFrame(file.read_bytes(), True) for file in numbered(self.path))
        elif self.format.codec in WITH_LENGTHS:
            yield from (DecodedFrame(_with_start_codes(data), key) for data, key in _packets(self.path))
        else:
            yield from _packets(self.path)


def film_format(path: Path) -> Format:
    """Of a film of which at least the header, or the first picture, is on disk. Raises OSError."""
    if path.is_dir():
        first = next(numbered(path), None)
        if first is None:
            raise FileNotFoundError(f"{path} holds no numbered pictures")
        with Image.open(first) as image:
            return Format("png", image.width, image.height, None, image.mode)
    with open_torn(path) as container:
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
    """What keeps the frames of an old film out of a new one, in words; nothing where they fit."""
    found = [
        f"{name} {was} (this film: {now})"
        for name, was, now in (
            ("codec", old.codec, film.codec),
            ("size", f"{old.width}x{old.height}", f"{film.width}x{film.height}"),
            ("frames a second", old.rate, film.rate),
            ("pixels", old.pixels, film.pixels),
        )
        if was != now
    ]
    if not found and old.encoder != film.encoder:
        return ["other settings of the encoder (its quality or its version)"]
    return found


def check_copied(reel: PacketSource, copied: int, wanted: int) -> None:
    """Raises OSError where a film gave fewer frames than it has: it is being changed by somebody else."""
    if copied != wanted:
        raise OSError(f"{reel.path} gave {copied} of {wanted} frames to copy; somebody changes it: make the film again")


def check_fits(reel: PacketSource, film: Format) -> None:
    """Raises ValueError that names what keeps the reel's frames out of a film."""
    found = differences(reel.format, film)
    if found:
        raise ValueError(f"{reel.path} has {', '.join(found)}: its frames cannot be copied; encode them again")


def _packets(path: Path) -> Iterator[DecodedFrame]:
    """As the container stores them, up to a torn end."""
    with open_torn(path) as container, suppress(InvalidDataError):
        for packet in container.demux(container.streams.video[0]):
            if packet.is_corrupt:
                return
            if packet.size:
                yield DecodedFrame(bytes(packet), packet.is_keyframe)


def _with_start_codes(data: bytes) -> bytes:
    found, at = bytearray(), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found += b"\0\0\0\1" + data[at + 4 : at + 4 + size]
        at += 4 + size
    return bytes(found)
