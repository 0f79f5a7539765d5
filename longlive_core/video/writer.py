"""Frames into a film file while they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av import Packet
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

from .audio import Audio, AudioTrack
from .codecs import CODECS, Codec, choose_encoder, choose_quality, encoder_options
from .fragments import FragmentFile, PatchedFile
from .frames import checked_frames
from .packets import Format, PacketSource, check_copied, check_fits, differences, film_format

# A fragment holds at most this much film, so that the file is never far behind the frames.
FRAGMENT_SECONDS = 0.25

# Every codec's number for BT.709, the colours of high-definition video; the same for primaries, transfer and matrix.
BT709 = 1


class VideoWriter:
    """A fragmented mp4, mov or webm that grows while it is made: constant frame rate, BT.709, limited range.

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
        """Opens the file, whatever its name, and writes its header. Sizes in pixels.

        `codec` is one of `CODECS` but png, `quality` one of `QUALITIES`; `crf` overrides it: 0 … 51 (av1 and vp9: 63),
        smaller is better; prores has none. `audio` begins with the first frame; what is longer than the film is left
        out, to the packet. `metadata` are the container's own, as ComfyUI's "prompt" and "workflow"; webm writes their
        names in capitals.

        Raises ValueError for an odd size and for a codec, quality or crf that is not offered, and OSError that names
        the path where it cannot be written.
        """
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"film size {width}x{height} must be positive and even: {codec} halves its colours")
        encoder, scale = choose_encoder(codec), choose_quality(codec, quality, crf)
        self.width, self.height, self.frames = width, height, 0
        self._codec = CODECS[codec]
        self._key = True
        # 29.97 as a float has a denominator that no container can hold; broadcast rates are whole over 1001.
        rate = Fraction(fps).limit_denominator(1001)
        self._tick = 1 / rate
        # Webm ends a cluster where the next one begins, and tells its length at the end.
        self._file = PatchedFile(Path(path)) if self._codec.container == "webm" else FragmentFile(Path(path))
        try:
            muxer = _muxer_options(self._codec, bool(metadata))
            self._container = av.open(self._file, "w", format=self._codec.container, options=muxer)
            self._container.metadata.update(metadata or {})
            options = {**encoder_options(codec, encoder, width, height), **scale}
            stream = self._container.add_stream(encoder, rate=rate, options=options, width=width, height=height)
            assert isinstance(stream, VideoStream)
            self._stream = stream
            _describe(stream.codec_context, self._codec)
            # Each block is encoded by itself: one that is made again alone is the same to the bit.
            self._renewed = partial(_encoder, encoder, options, self._codec, width, height, rate)
            self._encoder: VideoCodecContext | None = None
            self._sound = AudioTrack(self._container, audio, self._codec.sound) if audio else None
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
        for picture in checked_frames(frames, self.width, self.height):
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format=self._codec.pixels, dst_colorspace=Colorspace.ITU709)
            frame.color_primaries = frame.color_trc = BT709  # ProRes writes them into every frame
            frame.pts, frame.time_base = self.frames, self._tick
            frame.pict_type = PictureType.I if self._key else PictureType.NONE
            if self._key or self._encoder is None:
                self._finish_block()
                self._encoder = self._renewed()
            self._key = False
            self._add(self._encoder.encode(frame))

    def fits(self, reel: PacketSource) -> bool:
        """Whether `copy` takes this film's frames."""
        return not differences(reel.format, self._format)

    def copy(self, reel: PacketSource, start: int, stop: int) -> None:
        """The next frames are those of a film made before, [start, stop), to the bit: nothing is decoded.

        `start` is one of its `keys`, and so is `stop`, or the film's end. Its sound is not copied.

        Raises ValueError where its codec, size, rate or encoder settings are not this film's, before anything is
        written; OSError as `write` does.
        """
        check_fits(reel, self._format)
        begun = self.frames
        for piece in reel.pieces(start, stop):
            packet = cast("Packet[VideoStream]", Packet(piece.data))
            packet.is_keyframe = piece.key
            packet.pts = packet.dts = self.frames
            packet.duration = 1
            self._add([packet])
        check_copied(reel, self.frames - begun, stop - start)
        self._key = True

    def close(self) -> None:
        """Writes the last fragment and closes the file; twice is harmless. Raises OSError as `write` does."""
        if self._file.closed:
            return
        try:
            if not self._file.failed:
                self._finish_block()
            self._container.close()
            if not self._file.failed:
                self._file.commit()
        finally:
            self._file.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def _format(self) -> Format:
        """The header tells what the encoder wrote into it, and not yet what frames tell."""
        return film_format(self._file.path)._replace(rate=1 / self._tick, pixels=self._codec.pixels)

    def _finish_block(self) -> None:
        """What the encoder still holds of a block; none of our encoders holds anything."""
        if self._encoder is not None:
            self._mux(self._placed(self._encoder.encode(None)))
            self._encoder = None

    def _placed(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
        for packet in packets:
            packet.stream, packet.time_base = self._stream, self._tick
            yield packet

    def _add(self, packets: Iterable[Packet[VideoStream]]) -> None:
        """One frame and the sound beside it."""
        self._mux(self._placed(packets))
        if self._sound:
            self._mux(self._sound.between(self.frames * self._tick, (self.frames + 1) * self._tick))
        self.frames += 1

    def _mux(self, packets: Iterable[Packet[VideoStream] | Packet[AudioStream]]) -> None:
        for packet in packets:
            self._container.mux(packet)
            self._file.commit()


def _muxer_options(codec: Codec, metadata: bool) -> dict[str, str]:
    if codec.container == "webm":
        # A cluster ends before the frame that is later than this, in ms.
        limit = str(round(FRAGMENT_SECONDS * 1000) - 1)
        # Else every file has a random number for its track.
        return {"cluster_time_limit": limit, "flush_packets": "1", "fflags": "+bitexact"}
    # Without the last flag mp4 keeps only the keys it has always known. Where every frame is a key frame, fragments
    # are as long as they may be.
    key = "frag_keyframe+" if codec.container == "mp4" else ""
    return {
        "movflags": key + "empty_moov+default_base_moof" + "+use_metadata_tags" * metadata,
        "frag_duration": str(round(FRAGMENT_SECONDS * 1_000_000)),
        "flush_packets": "1",
    }


def _encoder(
    name: str, options: Mapping[str, str], codec: Codec, width: int, height: int, rate: Fraction
) -> VideoCodecContext:
    """An encoder that has seen nothing yet, as the stream's own was made."""
    context = VideoCodecContext.create(name, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.framerate, context.time_base = width, height, rate, 1 / rate
    context.options = dict(options)
    context.flags |= Flags.global_header
    _describe(context, codec)
    return context


def _describe(context: VideoCodecContext, codec: Codec) -> None:
    context.pix_fmt = codec.pixels
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = 1  # limited ("MPEG")
    # One thread keeps the file the same on every machine and leaves the cores to the model.
    context.thread_count = 1
    if codec.tag:
        context.codec_tag = codec.tag
