"""Opens a film for writing with any codec."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from .audio import Audio
from .codecs import CODECS, check_path, choose_quality
from .film_writer import FilmWriter
from .image_sequence import ImageSequenceWriter
from .writer import VideoWriter

if TYPE_CHECKING:
    from typing_extensions import Unpack


class FilmOptions(TypedDict, total=False):
    """Options that `VideoWriter` and `ImageSequenceWriter` share."""

    fps: int | Fraction
    audio: Audio | None
    metadata: Mapping[str, str] | None


def open_film(
    path: Path | str,
    *,
    width: int,
    height: int,
    codec: str = "h264",
    quality: str = "high",
    crf: int | None = None,
    **options: Unpack[FilmOptions],
) -> FilmWriter:
    """Opens a film for writing: a file, or a folder of pictures if the codec is png.

    The options are those of `VideoWriter`. `path` must have the extension of the codec (see `film_path`).

    Raises ValueError for another extension, before anything is opened, and the errors of `VideoWriter` and
    `ImageSequenceWriter`.
    """
    check_path(path, codec)
    if CODECS[codec].encoders:
        return VideoWriter(path, width=width, height=height, codec=codec, quality=quality, crf=crf, **options)
    choose_quality(codec, quality, crf)  # raises ValueError for an unknown quality or a crf
    return ImageSequenceWriter(path, width=width, height=height, **options)
