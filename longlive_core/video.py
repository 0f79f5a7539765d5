"""Frames into a film file while they come, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import torch
from av import Packet
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import EOFError as EndOfFileError
from av.error import InvalidDataError
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from .audio import Audio, AudioTrack
from .codecs import CODECS, choose_crf, choose_encoder

# A fragment holds at most this much film, so that the file is never far behind the frames.
FRAGMENT_SECONDS = 0.25

# Every codec's number for BT.709, the colours of high-definition video; the same for primaries, transfer and matrix.
BT709 = 1


class VideoWriter:
    """A fragmented mp4 that grows while it is made: yuv420p, constant frame rate, BT.709.

        with VideoWriter(path, width=128, height=128, fps=24) as writer:
            for block in blocks:
                writer.start_block()
                writer.write(frames)

    What is promised: the file's header is on disk when the constructor returns, and whole fragments of at most
    `FRAGMENT_SECONDS` follow, each as soon as the first frame after it arrives. A process killed at any moment leaves
    a file that plays to its last whole fragment (no frame at all if none was whole); after a failed write nothing else
    is in the file. Sound is in the file as far as the pictures, and metadata from the header on.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        width: int,
        height: int,
        fps: int | Fraction = 24,
        codec: str = "h264",
        quality: str = "high",
        crf: int | None = None,
        audio: Audio | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Opens the file and writes its header. Sizes in pixels.

        `codec` is one of `CODECS`, `quality` one of `QUALITIES`; `crf` overrides it: 0 … 51 (av1: 63), smaller is
        better. `audio` begins with the first frame; what is longer than the film is left out, to the AAC frame.
        `metadata` are the container's own, as ComfyUI's "prompt" and "workflow".

        Raises ValueError for an odd size and for a codec, quality or crf that is not offered, and OSError that names
        the path where it cannot be written.
        """
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"film size {width}x{height} must be positive and even: yuv420p halves its colours")
        encoder, crf = choose_encoder(codec), choose_crf(codec, quality, crf)
        self.width, self.height, self.frames = width, height, 0
        self._key = True
        self._file = _FragmentFile(Path(path))
        try:
            self._container = av.open(self._file, "w", format="mp4", options=_muxer_options(bool(metadata)))
            self._container.metadata.update(metadata or {})
            options = {**CODECS[codec].encoders[encoder], "crf": str(crf)}
            # 29.97 as a float has a denominator that no container can hold; broadcast rates are whole over 1001.
            rate = Fraction(fps).limit_denominator(1001)
            stream = self._container.add_stream(encoder, rate=rate, options=options, width=width, height=height)
            assert isinstance(stream, VideoStream)
            self._stream = stream
            _describe(stream, CODECS[codec].tag)
            self._sound = AudioTrack(self._container, audio) if audio else None
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
            self._mux(self._stream.encode(frame))
            if self._sound:
                start, end = (Fraction(n) * frame.time_base for n in (self.frames, self.frames + 1))
                self._mux(self._sound.between(start, end))
            self.frames += 1

    def close(self) -> None:
        """Writes the last fragment and closes the file; twice is harmless. Raises OSError as `write` does."""
        if self._file.closed:
            return
        try:
            if not self._file.failed:
                self._mux(self._stream.encode(None))
            self._container.close()
            if not self._file.failed:
                self._file.commit()
        finally:
            self._file.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _mux(self, packets: Iterable[Packet[VideoStream] | Packet[AudioStream]]) -> None:
        for packet in packets:
            self._container.mux(packet)
            self._file.commit()


def read_video(path: Path | str) -> Tensor:
    """All frames that a film still plays, `[T, H, W, 3]` uint8; a torn end is left out. T = 0 where there is none."""
    pictures: list[NDArray[np.uint8]] = []
    with _open(Path(path)) as container:
        stream = container.streams.video[0]
        with suppress(InvalidDataError):  # the torn end of a killed film
            for frame in container.decode(stream):
                bt709 = frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709)
                pictures.append(bt709.to_ndarray())
        if not pictures:
            return torch.empty((0, stream.height, stream.width, 3), dtype=torch.uint8)
    return torch.from_numpy(np.stack(pictures))


def _open(path: Path) -> InputContainer:
    """A film, and one that was cut off in the head of a fragment, which libav refuses, without that head."""
    try:
        return av.open(str(path))
    except (InvalidDataError, EndOfFileError):
        data, at = path.read_bytes(), 0
        while at + 8 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            if size < 8 or at + size > len(data):
                break
            at += size
        return av.open(BytesIO(data[:at]), "r")


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


def _muxer_options(metadata: bool) -> dict[str, str]:
    return {
        # Without the last flag mp4 keeps only the keys it has always known.
        "movflags": "frag_keyframe+empty_moov+default_base_moof" + "+use_metadata_tags" * metadata,
        "frag_duration": str(round(FRAGMENT_SECONDS * 1_000_000)),
        "flush_packets": "1",
    }


def _describe(stream: VideoStream, tag: str | None) -> None:
    context = stream.codec_context
    stream.pix_fmt = "yuv420p"
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = 1  # limited ("MPEG")
    # One thread keeps the file the same on every machine and leaves the cores to the model.
    context.thread_count = 1
    if tag:
        context.codec_tag = tag
