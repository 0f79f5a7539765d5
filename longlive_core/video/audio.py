"""The sound of a film, encoded in step with its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import cast

import torch
from av import AudioFrame, Packet
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import OutputContainer
from torch import Tensor
from torch.nn.functional import pad

from .mixdown import mixdown_note, to_stereo, without_clipping

BITS_PER_CHANNEL = 96_000
# Samples per call of the encoder. PCM makes one packet of each call, so its chunks are shorter.
CHUNK, PCM_CHUNK = 16_384, 1_024


@dataclass(frozen=True)
class Audio:
    """Sound: `waveform [C, S]` float32 with C = 1 or 2, clipped to [-1, 1]; `rate` in samples per second.

    Raises ValueError for another shape or dtype, a rate that is not positive, and samples that are not finite.
    """

    waveform: Tensor
    rate: int

    def __post_init__(self) -> None:
        shape, dtype = list(self.waveform.shape), self.waveform.dtype
        if len(shape) != 2 or shape[0] not in (1, 2) or dtype != torch.float32:
            raise ValueError(f"audio is {dtype} {shape}; a film takes float32 [1 or 2 channels, samples]; mix it down")
        if self.rate <= 0:
            raise ValueError(f"audio rate {self.rate} must be positive (samples per second)")
        if not bool(self.waveform.isfinite().all()):
            raise ValueError("audio has NaN or infinite samples; repair them first")

    @classmethod
    def mixed(cls, waveform: Tensor, rate: int) -> tuple[Audio, str]:
        """Makes the sound of `[C, S]` with any number of channels in the order of WAVE files, mixed down to stereo.

        Returns it with a note, empty if nothing was mixed. Raises ValueError as the constructor does.
        """
        mixed = to_stereo(waveform) if waveform.ndim == 2 else waveform
        return cls(mixed if mixed is waveform else without_clipping(mixed), rate), mixdown_note(len(waveform))


class AudioTrack:
    """The sound of one film in the codec of its container. Packets are encoded on demand."""

    def __init__(self, container: OutputContainer, audio: Audio, codec: str = "aac") -> None:
        """Adds an audio stream to a container that has not started to encode.

        codec: "aac", "libopus" or "pcm_s16le". Opus has a few rates only: other sound is resampled to 48 kHz.
        """
        rates = Codec(codec, "w").audio_rates
        layout = ("mono", "stereo")[audio.waveform.shape[0] - 1]
        rate = audio.rate if rates is None or audio.rate in rates else 48_000
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        if rates is not None:
            self._stream.bit_rate = BITS_PER_CHANNEL * audio.waveform.shape[0]
        # The webm muxer would store the empty packets of `between`: in webm, silence is encoded after the sound.
        self._endless = codec == "libopus"
        packets = _encode(self._stream, audio, CHUNK if rates else PCM_CHUNK, self._endless)
        # AAC starts with a packet of priming samples before time 0. It needs an edit list, which a header that is
        # written first cannot have; without one it delays the sound. Dropping it fades in the first 1,024 samples.
        # The header of Opus stores the number of priming samples.
        self._packets = (packet for packet in packets if self._endless or (packet.pts or 0) >= 0)
        self._rate = rate
        self._next: Packet[AudioStream] | None = None
        self._started, self._delay = False, Fraction(0)

    @property
    def delay(self) -> Fraction:
        """How much later, in s, the blocks of Opus in webm are stamped than they are heard; 0 in other containers."""
        self._start()
        return self._delay

    def _start(self) -> None:
        if not self._started:
            self._next, self._started = next(self._packets, None), True
            first = self._next.pts if self._next and self._endless else None
            self._delay = Fraction(max(0, -(first or 0)), self._rate)

    def between(self, start: Fraction, end: Fraction) -> Iterator[Packet[AudioStream]]:
        """Yields the packets before `end` that were not returned yet; [start, end) is one picture's time in s.

        The muxer delays a picture until a packet of sound at least as late arrives. If none starts during the picture,
        an empty packet is added, which the muxer does not store; in webm, the next packet is returned early.
        """
        self._start()
        reached = False
        while self._next is not None and ((self._next.pts or 0) < end * self._rate or (self._endless and not reached)):
            reached = (self._next.pts or 0) >= start * self._rate
            yield self._next
            self._next = next(self._packets, None)
        if not reached:
            empty = cast("Packet[AudioStream]", Packet())
            empty.stream, empty.time_base = self._stream, Fraction(1, self._rate)
            empty.pts = empty.dts = -int(-start * self._rate // 1)
            yield empty


def _encode(stream: AudioStream, audio: Audio, chunk: int, endless: bool) -> Iterator[Packet[AudioStream]]:
    """Encodes the sound; `endless` appends silence without end."""
    samples = audio.waveform.shape[1]
    for start in count(0, chunk) if endless else range(0, samples, chunk):
        piece = audio.waveform[:, start : start + chunk].clamp(-1, 1).cpu()
        if endless:
            piece = pad(piece, (0, chunk - piece.shape[1]))
        frame = AudioFrame.from_ndarray(piece.contiguous().numpy(), format="fltp", layout=stream.layout.name)
        frame.sample_rate, frame.time_base, frame.pts = audio.rate, Fraction(1, audio.rate), start
        yield from stream.encode(frame)
    yield from stream.encode(None)
