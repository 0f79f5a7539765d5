"""The sound of a video from elsewhere: in time with its frames, mono or stereo."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from longlive.longlive_core.video import Audio
from longlive.longlive_core.video.clip import Clip, ClipStopped
from numpy.typing import NDArray

from .clips import beep, greys, onset, write_frames

Sound = tuple[NDArray[np.float32], int, str, float]


def clip_with(path: Path, sound: Sound | None, seconds: float = 2) -> Clip:
    return Clip(write_frames(path, greys([60] * round(24 * seconds)), codec="libx264", sound=sound), 24)


@pytest.mark.parametrize(
    ("name", "rate", "channels", "codec", "start"),
    [
        ("clip.mp4", 48_000, 2, "aac", 0.0),
        ("clip.mp4", 44_100, 1, "aac", 0.0),
        ("clip.mkv", 48_000, 2, "libopus", 0.0),
        ("clip.mov", 44_100, 2, "pcm_s16le", 0.0),
        ("clip.mkv", 22_050, 1, "pcm_s16le", 0.5),
        ("clip.mp4", 44_100, 2, "aac", 0.5),
        ("clip.mkv", 48_000, 2, "flac", 0.25),
    ],
)
def test_sound_is_in_time_with_the_frames(
    tmp_path: Path, name: str, rate: int, channels: int, codec: str, start: float
) -> None:
    """A beep is heard where it was, to 2 ms, also in sound that starts later than the pictures."""
    clip = clip_with(tmp_path / name, (beep(1.4, rate, channels, 0.5), rate, codec, start))
    sound = clip.sound()
    assert sound is not None and len(sound.waveform) == channels and sound.rate == rate
    for channel in sound.waveform:
        assert onset(channel, rate) == pytest.approx(0.5 + start, abs=0.002)
    later = clip.sound(12)
    assert later is not None
    assert onset(later.waveform[0], rate) == pytest.approx(start, abs=0.002)


@pytest.mark.parametrize(
    ("channels", "sounding", "heard"),
    [
        (6, [2], "both"),  # front centre
        (6, [0], "left"),
        (6, [5], "right"),  # right surround
        (6, [3], "none"),  # the subwoofer's channel is not mixed down
        (8, [4], "left"),
        (8, [1, 7], "right"),
    ],
)
def test_surround_sound_is_mixed_down_and_noted(tmp_path: Path, channels: int, sounding: list[int], heard: str) -> None:
    """5.1 and 7.1 become stereo: each channel on its side, and a note says so."""
    sound = (beep(1, 48_000, channels, 0.3, sounding), 48_000, "pcm_s16le", 0.0)
    clip = clip_with(tmp_path / "clip.mkv", sound)
    mixed = clip.sound()
    assert mixed is not None and len(mixed.waveform) == 2
    loud = [not math.isnan(onset(channel, 48_000)) for channel in mixed.waveform]
    assert loud == {"both": [True, True], "left": [True, False], "right": [False, True], "none": [False, False]}[heard]
    assert any(f"{channels} channels" in note and "stereo" in note for note in clip.notes)


def test_no_sound_is_none(tmp_path: Path) -> None:
    """A silent video has no sound and no note of one."""
    clip = clip_with(tmp_path / "clip.mp4", None)
    assert clip.sound() is None and not clip.notes


def test_sound_longer_than_the_pictures_ends_with_them(tmp_path: Path) -> None:
    """The film goes on behind the video's last frame, so what sounds later is cut."""
    clip = clip_with(tmp_path / "clip.mkv", (beep(5, 48_000, 1, 3.0), 48_000, "pcm_s16le", 0.0))
    sound = clip.sound()
    assert sound is not None
    assert sound.waveform.shape[1] == pytest.approx(2 * 48_000, abs=100)


def test_a_part_of_a_video_has_that_part_of_its_sound(tmp_path: Path) -> None:
    """The sound of a part starts with its first frame."""
    path = write_frames(
        tmp_path / "clip.mkv",
        greys([60] * 72),
        codec="libx264",
        sound=(beep(3, 48_000, 1, 1.5), 48_000, "pcm_s16le", 0.0),
    )
    sound = Clip(path, 24, start=1.0, duration=1.5).sound()
    assert sound is not None
    assert onset(sound.waveform[0], 48_000) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("channels", "sounding", "loud"),
    [(6, 2, [True, True]), (6, 4, [True, False]), (4, 1, [False, True]), (8, 7, [False, True]), (12, 5, [True, True])],
)
def test_audio_of_many_channels_is_mixed_down(channels: int, sounding: int, loud: list[bool]) -> None:
    """Samples without a layout are in the order of WAVE files; beyond eight channels all are heard on both sides."""
    audio, note = Audio.mixed(torch.from_numpy(beep(1, 48_000, channels, 0.3, [sounding])), 48_000)
    assert len(audio.waveform) == 2
    assert [bool((channel.abs() > 0.02).any()) for channel in audio.waveform] == loud
    assert f"{channels} channels" in note


@pytest.mark.parametrize("channels", [1, 2])
def test_mono_and_stereo_are_kept(channels: int) -> None:
    """One and two channels are taken to the bit, without a note."""
    samples = torch.from_numpy(beep(1, 48_000, channels, 0.3))
    audio, note = Audio.mixed(samples, 48_000)
    assert torch.equal(audio.waveform, samples) and not note


def test_reading_sound_can_be_stopped(tmp_path: Path) -> None:
    """A stop while a long sound is read does not wait for its end."""
    path = tmp_path / "clip.mp4"
    clip_with(path, (beep(2, 48_000, 1, at=0.5), 48_000, "aac", 0.0))
    asked: list[bool] = []
    frames = Clip(path, 24).frames

    def stop() -> bool:
        asked.append(True)
        return len(asked) > frames

    clip = Clip(path, 24, stop)
    with pytest.raises(ClipStopped):
        clip.sound()
    assert len(asked) == frames + 1
