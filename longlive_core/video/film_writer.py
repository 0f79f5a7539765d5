"""The base class of film writers: a film is written block by block, encoded from frames or copied from packets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .packets import EncodedFrame, Format, PacketSource, differences


class FilmWriter(ABC):
    """Writes frames as they arrive. `width` and `height` are in pixels; `frames` counts the frames written so far."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height, self.frames = width, height, 0

    @property
    def bytes(self) -> int:
        """How many bytes of the film's file are on disk; 0 for a folder of pictures."""
        return 0

    @abstractmethod
    def start_block(self) -> None:
        """Makes the next frame decodable without the frames before it."""

    def write(self, frames: Tensor | NDArray[np.uint8]) -> None:
        """Appends frames `[T, height, width, 3]` uint8.

        Raises ValueError for another shape or dtype, and OSError when the disk is full: frames already written stay
        playable.
        """
        pixels = frames.cpu().numpy() if isinstance(frames, Tensor) else frames
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (self.height, self.width, 3):
            expected = f"uint8 [T, {self.height}, {self.width}, 3]"
            raise ValueError(f"frames are {pixels.dtype} {list(pixels.shape)}; this film takes {expected}")
        for picture in pixels:
            self._encode(np.ascontiguousarray(picture))

    def fits(self, packets: PacketSource) -> bool:
        """Returns whether `copy` accepts the frames of this film."""
        return not differences(packets.format, self._format)

    def copy(self, packets: PacketSource, start: int, stop: int) -> None:
        """Appends frames [start, stop) of a finished film, bit for bit, without decoding them.

        `start` must be a key frame; `stop` must be a key frame or the end of the film. Sound is not copied.

        Raises ValueError, before anything is written, if the codec, size, frame rate or encoder settings differ, and
        OSError as `write` does.
        """
        if reasons := differences(packets.format, self._format):
            raise ValueError(f"{packets.path} has {', '.join(reasons)}: its frames cannot be copied; encode them again")
        first = self.frames
        for frame in packets.pieces(start, stop):
            self._copy(frame)
        if self.frames - first != stop - start:
            copied = f"{self.frames - first} of {stop - start} frames"
            raise OSError(f"only {copied} could be copied: {packets.path} changed meanwhile; render the film again")

    def change_metadata(self, values: Mapping[str, str]) -> bool:  # noqa: ARG002
        """Has `close` write other values for keys of the metadata; returns whether the file can have them."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Finishes the film on disk. Closing twice is harmless. Raises OSError as `write` does."""

    @abstractmethod
    def abandon(self) -> None:
        """Closes the film without writing anything more, for a path that is another process's by now."""

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    @abstractmethod
    def _format(self) -> Format:
        """The format that the packets of another film must have to be copied."""

    @abstractmethod
    def _encode(self, picture: NDArray[np.uint8]) -> None:
        """Encodes and appends one frame `[height, width, 3]`."""

    @abstractmethod
    def _copy(self, frame: EncodedFrame) -> None:
        """Appends one frame that is already encoded."""
