"""The sound of a video of any format, in time with its frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from av import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from torch import Tensor

from .audio import Audio
from .clip_frames import Source, is_animation, open_source
from .mixdown import mixdown_note, to_stereo, without_clipping


def read_sound(source: Source, start: float, end: float, check_stop: Callable[[], None]) -> Audio | None:
    """The sound from `start` to `end` in s of the video's clock, mono or stereo; None if there is none in between.

    Where the video has no sound, it is silent. check_stop: called for every piece of sound; may raise. Raises as
    `open_source` does.
    """
    if is_animation(source):
        return None
    with open_source(source) as container:
        stream = _main_sound(container)
        if stream is None:
            return None
        rate, surround, pieces = stream.rate, stream.channels > 2, list[tuple[int, Tensor]]()
        for time, samples in _pieces(container, stream, rate):
            check_stop()
            at = round((time - start) * rate)
            if at >= (end - start) * rate:
                break
            if at + samples.shape[1] > 0:
                pieces.append((at, samples))
    if not pieces:
        return None
    length = min(round((end - start) * rate), max(at + piece.shape[1] for at, piece in pieces))
    waveform = torch.zeros(max(len(piece) for _, piece in pieces), max(0, length))
    for at, piece in pieces:
        piece = piece[:, max(0, -at) : length - at]
        waveform[:, max(0, at) : max(0, at) + piece.shape[1]] = piece
    waveform = waveform.nan_to_num(0.0, 0.0, 0.0)
    return Audio(without_clipping(waveform) if surround else waveform, rate)


def sound_notes(source: Source) -> list[str]:
    """What is changed or left out of a video's sound. Raises as `open_source` does."""
    if is_animation(source):
        return []
    with open_source(source) as container:
        stream = _main_sound(container)
        if stream is None:
            unread = bool(container.streams.audio)
            return ["the video's sound has a codec that cannot be read: it is left out"] if unread else []
        others = len(container.streams.audio) - 1
        notes = [f"the video has {others + 1} sound tracks: only the main one is kept"] if others else []
        return [*notes, *filter(None, [mixdown_note(stream.channels)])]


def _main_sound(container: InputContainer) -> AudioStream | None:
    """The first stream of sound that can be decoded, a default one first."""
    # Streams without a decoder, such as the spatial sound of some phones, have no codec context.
    known = [s for s in container.streams.audio if getattr(s, "codec_context", None) is not None and s.rate]
    return max(known, key=lambda stream: bool(stream.disposition & Disposition.default), default=None)


def _pieces(container: InputContainer, stream: AudioStream, rate: int) -> Iterator[tuple[float, Tensor]]:
    """Yields (time in s, samples `[1 or 2, S]`) of the decoded frames; a truncated end is left out."""
    resampler, kind = None, None
    with suppress(InvalidDataError, FFmpegError):
        for frame in container.decode(stream):
            if kind != (kind := (frame.layout.name, frame.sample_rate, frame.format.name)):
                resampler = AudioResampler("flt", frame.layout, rate)
            assert resampler is not None
            names = [channel.name for channel in frame.layout.channels]
            for piece in resampler.resample(frame):
                samples = torch.from_numpy(piece.to_ndarray()).view(-1, len(names)).T
                yield piece.time or 0.0, to_stereo(samples, names)
