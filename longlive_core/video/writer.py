"""Writes a film file that is playable while it grows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
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

from .audio import Audio, AudioTrack
from .codecs import CODECS, Codec, choose_encoder, choose_quality, encoder_options
from .film_writer import FilmWriter
from .fragments import FragmentFile
from .mp4_metadata import with_metadata
from .packets import EncodedFrame, Format, film_format

# Parts of a frame's duration in which times are counted in webm.
FINE = 1000

# The ITU-T H.273 code of BT.709; the same for primaries, transfer and matrix.
BT709 = 1
LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG


class VideoWriter(FilmWriter):
    """A fragmented mp4, mov or webm with a constant frame rate, in BT.709 with limited range.

        with VideoWriter(path, width=128, height=128, fps=24) as writer:
            for block in blocks:
                writer.start_block()
                writer.write(frames)

    Guarantees: the header, with the metadata, is on disk when the constructor returns. A complete fragment follows for
    every frame, as soon as the frame after it arrives, with the sound up to its end.
    If the process is killed, the file plays to the end of its last complete fragment (it may have no frame). A failed
    write leaves only complete fragments in the file. `close` adds the duration and an index of all frames.
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
        """Opens the file (any extension is accepted) and writes its header.

        `width` and `height` are in pixels and even, `fps` is frames per second. `codec` is one of `CODECS` except png,
        `quality` one of `QUALITIES`. `crf` overrides the quality: 0 (best) to 51, or 63 for av1 and vp9; prores has no
        crf. `audio` starts with the first frame; packets after the last frame are dropped. `metadata` becomes metadata
        of the container, such as ComfyUI's "prompt" and "workflow"; webm stores the keys in capitals.

        Raises ValueError for an odd size and an unknown codec, quality or crf, and OSError with the path if the file
        cannot be written.
        """
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"film size {width}x{height} must be positive and even: {codec} subsamples colours by 2")
        super().__init__(width, height)
        encoder, quality_options = choose_encoder(codec), choose_quality(codec, quality, crf)
        self._codec = CODECS[codec]
        self._key = True
        self._changed: dict[str, str] = {}
        # The exact fraction of the float 29.97 does not fit into a container; broadcast rates are n/1001.
        rate = Fraction(fps).limit_denominator(1001)
        self._tick = 1 / rate
        self._file = FragmentFile(Path(path))
        try:
            muxer = _muxer_options(self._codec, self._tick, bool(metadata))
            self._container = av.open(self._file, "w", format=self._codec.container, options=muxer)
            self._container.metadata.update(metadata or {})
            options = {**encoder_options(codec, encoder, width, height), **quality_options}
            stream = self._container.add_stream(encoder, rate=rate, options=options, width=width, height=height)
            assert isinstance(stream, VideoStream)
            self._stream = stream
            _configure(stream.codec_context, self._codec)
            # Every block gets a new encoder, so that a block that is rendered again alone is bit-identical.
            self._new_encoder = partial(_create_encoder, encoder, options, self._codec, width, height, rate)
            self._encoder: VideoCodecContext | None = None
            self._sound = AudioTrack(self._container, audio, self._codec.sound) if audio else None
            self._container.start_encoding()
            self._file.commit()
        except BaseException:
            self._file.close()
            raise

    @property
    def bytes(self) -> int:
        """How many bytes of the file are on disk. All but the header, which `close` changes, stay as they are."""
        return self._file.size

    def start_block(self) -> None:
        """Makes the next frame a key frame."""
        self._key = True

    def change_metadata(self, values: Mapping[str, str]) -> bool:
        """See `FilmWriter`. A webm has its metadata in front, where they cannot grow."""
        if self._codec.container == "webm":
            return False
        self._changed.update(values)
        return True

    def close(self) -> None:
        """Writes the last fragment and closes the file. Closing twice is harmless. Raises OSError as `write` does."""
        if self._file.closed:
            return
        try:
            if not self._file.failed:
                self._finish_block()
            self._container.close()
            if not self._file.failed:
                if self._changed:
                    self._file.change(partial(with_metadata, values=self._changed))
                self._file.commit()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """See `FilmWriter`."""
        self._file.failed = True
        self.close()

    @property
    def _format(self) -> Format:
        # The header on disk has the settings that the encoder wrote. Rate and pixel format are known from frames only.
        return film_format(self._file.path)._replace(rate=1 / self._tick, pixels=self._codec.pixels)

    def _encode(self, picture: NDArray[np.uint8]) -> None:
        frame = VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format=self._codec.pixels, dst_colorspace=Colorspace.ITU709)
        frame.color_primaries = frame.color_trc = BT709  # ProRes writes them into every frame
        frame.pts, frame.time_base = self.frames, self._tick
        frame.pict_type = PictureType.I if self._key else PictureType.NONE
        if self._key or self._encoder is None:
            self._finish_block()
            self._encoder = self._new_encoder()
        self._key = False
        self._add(self._encoder.encode(frame))

    def _copy(self, frame: EncodedFrame) -> None:
        packet = cast("Packet[VideoStream]", Packet(frame.data))
        packet.is_keyframe = frame.key
        packet.pts = packet.dts = self.frames
        packet.duration = 1
        self._add([packet])
        self._key = True

    def _finish_block(self) -> None:
        """Flushes the encoder. With the options of `CODECS` no encoder delays frames, so nothing is expected here."""
        if self._encoder is not None:
            self._mux(self._on_stream(self._encoder.encode(None)))
            self._encoder = None

    def _on_stream(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
        """Assigns packets to the video stream of this file."""
        early = self._sound.delay if self._sound else 0
        for packet in packets:
            packet.stream, packet.time_base = self._stream, self._tick
            if early and packet.pts is not None:
                # The muxer orders packets by dts, and in webm a sound's time is that of its block less `delay`.
                packet.time_base = self._tick / FINE
                packet.pts, packet.dts = packet.pts * FINE, packet.pts * FINE - round(early / self._tick * FINE)
                packet.duration = (packet.duration or 1) * FINE
            yield packet

    def _add(self, packets: Iterable[Packet[VideoStream]]) -> None:
        """Appends one frame and the sound that plays during it."""
        self._mux(self._on_stream(packets))
        if self._sound:
            self._mux(self._sound.between(self.frames * self._tick, (self.frames + 1) * self._tick))
        self.frames += 1

    def _mux(self, packets: Iterable[Packet[VideoStream] | Packet[AudioStream]]) -> None:
        for packet in packets:
            self._container.mux(packet)
            self._file.commit()


def _muxer_options(codec: Codec, tick: Fraction, metadata: bool) -> dict[str, str]:
    """Returns the options that make the muxer write a complete fragment for every frame, which lasts `tick` s."""
    if codec.container == "webm":
        # A cluster ends before the first frame that is later than this, in ms. Without bitexact the muxer writes a
        # random track number into every file.
        return {
            "cluster_time_limit": "0",
            "flush_packets": "1",
            "fflags": "+bitexact",
            "avoid_negative_ts": "disabled",
        }
    # hybrid_fragmented writes an index of all frames at the end, and then makes one large box of all fragments.
    # Without use_metadata_tags mp4 drops unknown keys.
    # With frag_every_frame sound would have fragments of its own, between which browsers drop pictures.
    return {
        "movflags": "hybrid_fragmented+empty_moov+default_base_moof" + "+use_metadata_tags" * metadata,
        "frag_duration": str(int(1_000_000 * tick)),
        "flush_packets": "1",
    }


def _create_encoder(
    name: str, options: Mapping[str, str], codec: Codec, width: int, height: int, rate: Fraction
) -> VideoCodecContext:
    """Returns a new encoder with the same options as the stream's own."""
    context = VideoCodecContext.create(name, "w")
    assert isinstance(context, VideoCodecContext)
    context.width, context.height, context.framerate, context.time_base = width, height, rate, 1 / rate
    context.options = dict(options)
    context.flags |= Flags.global_header
    _configure(context, codec)
    return context


def _configure(context: VideoCodecContext, codec: Codec) -> None:
    """Sets pixel format, colours, threads and codec tag."""
    context.pix_fmt = codec.pixels
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = LIMITED_RANGE
    # With one thread the file is the same on every machine, and the other cores stay free for the model.
    context.thread_count = 1
    if codec.tag:
        context.codec_tag = codec.tag
