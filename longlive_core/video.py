"""Frames into a film file while they come, and back."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import torch
from av.error import InvalidDataError
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Colorspace
from numpy.typing import NDArray
from torch import Tensor

# A fragment holds at most this much film, so that the file is never far behind the frames.
FRAGMENT_SECONDS = 0.25

# H.264's number for BT.709, the colours of high-definition video; the same for primaries, transfer and matrix.
BT709 = 1


class VideoWriter:
    """H.264 in a fragmented mp4 that grows while it is made: yuv420p, constant frame rate, BT.709.

        with VideoWriter(path, width=128, height=128, fps=24) as writer:
            for block in blocks:
                writer.start_block()
                writer.write(frames)

    What is promised: the file's header is on disk when the constructor returns, and whole fragments of at most
    `FRAGMENT_SECONDS` follow, each as soon as the first frame after it arrives. A process killed at any moment leaves
    a file that plays to its last whole fragment (no frame at all if none was whole); after a failed write nothing else
    is in the file.
    """

    def __init__(self, path: Path | str, *, width: int, height: int, fps: int | Fraction = 24, crf: int = 18) -> None:
        """Opens the file and writes its header. Sizes in pixels; `crf` 0 … 51, smaller is better.

        Raises ValueError for an odd size, and OSError that names the path where it cannot be written.
        """
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"film size {width}x{height} must be positive and even: yuv420p halves its colours")
        self.width, self.height, self.frames = width, height, 0
        self._key = True
        self._file = _FragmentFile(Path(path))
        try:
            self._container = av.open(self._file, "w", format="mp4", options=_muxer_options())
            self._stream = self._container.add_stream("libx264", rate=fps, options=_encoder_options(crf))
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
            codec = self._stream.codec_context
            codec.color_primaries = codec.color_trc = codec.colorspace = BT709
            codec.color_range = 1  # limited ("MPEG")
            # One thread keeps the file the same on every machine and leaves the cores to the model.
            codec.thread_count = 1
            self._container.start_encoding()
            self._file.commit()
        except BaseException:
            self._file.close()
            raise

    def start_block(self) -> None:
        """The next frame becomes a key frame."""
        self._key = True

    def write(self, frames: Tensor | NDArray[np.uint8]) -> None:
        """The next frames `[T, height, width, 3]`, uint8.

        Raises ValueError for another shape or dtype, OSError where the disk is full: what was written stays playable.
        """
        pixels = frames.cpu().numpy() if isinstance(frames, Tensor) else frames
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (self.height, self.width, 3):
            raise ValueError(
                f"frames are {pixels.dtype} {list(pixels.shape)}; this film takes "
                f"uint8 [T, {self.height}, {self.width}, 3]"
            )
        for picture in pixels:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            frame.pts = self.frames
            frame.time_base = 1 / Fraction(self._stream.codec_context.framerate)
            frame.pict_type = PictureType.I if self._key else PictureType.NONE
            self._key = False
            self.frames += 1
            self._mux(frame)

    def close(self) -> None:
        """Writes the last fragment and closes the file; twice is harmless. Raises OSError as `write` does."""
        if self._file.closed:
            return
        try:
            if not self._file.failed:
                self._mux(None)
            self._container.close()
            if not self._file.failed:
                self._file.commit()
        finally:
            self._file.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _mux(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
            self._file.commit()


def read_video(path: Path | str) -> Tensor:
    """All frames that a film still plays, `[T, H, W, 3]` uint8; a torn end is left out. T = 0 where there is none."""
    pictures: list[NDArray[np.uint8]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        with suppress(InvalidDataError):  # the torn end of a killed film
            for frame in container.decode(stream):
                bt709 = frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709)
                pictures.append(bt709.to_ndarray())
        if not pictures:
            return torch.empty((0, stream.height, stream.width, 3), dtype=torch.uint8)
    return torch.from_numpy(np.stack(pictures))


class _FragmentFile:
    """What the muxer writes, put on disk in whole pieces: `commit` is called where the bytes end a fragment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failed = False
        self._pending = bytearray()
        self._size = 0
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            reason = f"cannot write the film ({error.strerror}); choose another path"
            raise type(error)(error.errno, reason, str(path)) from error

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes) -> int:
        """Called by the muxer."""
        self._pending += data
        return len(data)

    def commit(self) -> None:
        """Everything written so far is whole: put it on disk. Raises OSError and takes a half-written piece back."""
        if not self._pending:
            return
        try:
            written = 0
            while written < len(self._pending):
                written += self._file.write(memoryview(self._pending)[written:])
        except OSError as error:
            self.failed = True
            with suppress(OSError):  # a torn end plays too; the first error is the one to tell
                self._file.truncate(self._size)
            raise type(error)(
                error.errno,
                f"the film stopped growing at {self._size:,} bytes ({error.strerror}); "
                "what is written plays; free some space or choose another disk",
                str(self.path),
            ) from error
        self._size += written
        self._pending.clear()

    def close(self) -> None:
        self._file.close()


def _muxer_options() -> dict[str, str]:
    return {
        "movflags": "frag_keyframe+empty_moov+default_base_moof",
        "frag_duration": str(round(FRAGMENT_SECONDS * 1_000_000)),
        "flush_packets": "1",
    }


def _encoder_options(crf: int) -> dict[str, str]:
    # No look-ahead and no B-frames: a frame is a packet at once. Key frames come where a block starts.
    return {"preset": "veryfast", "tune": "zerolatency", "crf": str(crf), "forced-idr": "1", "sc_threshold": "0"}
