"""The frames and the sound of a video on a wire: VIDEO from a file, VIDEO in memory, or IMAGE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import comfy.model_management
from comfy_api.latest import Input, InputImpl, ui
from torch import Tensor

from ..longlive_core.types import TIME_FACTOR
from ..longlive_core.video.audio import Audio
from ..longlive_core.video.clip import Clip, nearest_frames, speed_note

UNKNOWN_RATE = "frames have no rate: they are taken as {:g} frames per second; connect VIDEO to keep the video's speed"


@dataclass(frozen=True)
class GivenClip:
    """A video at the rate of the film.

    frames: their number. pieces: yields `[T, H, W, 3]` from a frame on, T = 1, then 4. sound: from a frame on, or None.
    notes: what was changed or left out.
    """

    frames: int
    pieces: Callable[[int], Iterator[Tensor]]
    sound: Callable[[int], Audio | None]
    notes: list[str]


def given_clip(video: Tensor | Input.Video, fps: float) -> GivenClip:
    """The clip of an IMAGE or a VIDEO. Raises ValueError for a file that is no video."""
    if isinstance(video, Tensor):
        return _of_images(video, range(len(video)), None, fps, [UNKNOWN_RATE.format(fps)])
    trim = getattr(video, "get_active_trim_window", None)
    if isinstance(video, InputImpl.VideoFromFile) and trim is not None:
        return _of_file(video.get_stream_source(), trim(), fps)
    parts = video.get_components()
    rate = float(parts.frame_rate)
    notes = [note] if (note := speed_note(rate, fps)) else []
    return _of_images(parts.images, nearest_frames(len(parts.images), rate, fps), parts.audio, fps, notes)


def audio_output(sound: Audio | None) -> dict[str, object] | None:
    """The sound as a value of ComfyUI's AUDIO."""
    return None if sound is None else {"waveform": sound.waveform[None], "sample_rate": sound.rate}


def audio_input(audio: Mapping[str, Any]) -> tuple[Audio, list[str]]:
    """The sound of ComfyUI's AUDIO, mono or stereo, with notes. Raises ValueError as `Audio` does."""
    waveform: Tensor = audio["waveform"]
    sound, note = Audio.mixed(waveform[0].float().cpu(), int(audio["sample_rate"]))
    more = f"audio is a batch of {len(waveform)}: the first sound is used" if len(waveform) > 1 else ""
    return sound, [said for said in (note, more) if said]


def with_notes(shown: ui.PreviewText | ui.PreviewVideo | dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """What a node shows, with notes below it."""
    values = shown if isinstance(shown, dict) else shown.as_dict()
    return {**values, "text": ("\n".join([*values.get("text", ()), *notes]),)} if notes else values


def _of_file(source: str | BytesIO, trim: tuple[float, float], fps: float) -> GivenClip:
    start, duration = trim

    def should_stop() -> bool:
        comfy.model_management.throw_exception_if_processing_interrupted()
        return False

    path = source if isinstance(source, BytesIO) else Path(source)
    clip = Clip(path, fps, should_stop, start=start, duration=duration)
    return GivenClip(clip.frames, clip.pieces, clip.sound, clip.notes)


def _of_images(
    images: Tensor, shown: range | list[int], audio: Mapping[str, Any] | None, fps: float, notes: list[str]
) -> GivenClip:
    """shown: the image of each frame of the film."""
    indices, sound = list(shown), None
    if audio is not None:
        sound, more = audio_input(audio)
        notes = [*notes, *more]

    def pieces(start: int) -> Iterator[Tensor]:
        stops = [start, *range(start + 1, len(indices), TIME_FACTOR), len(indices)]
        return (images[indices[begin:end]] for begin, end in pairwise(stops))

    def sound_from(start: int) -> Audio | None:
        if sound is None:
            return None
        begin, end = (round(number / fps * sound.rate) for number in (start, len(indices)))
        return Audio(sound.waveform[:, begin:end], sound.rate)

    return GivenClip(len(indices), pieces, sound_from, notes)
