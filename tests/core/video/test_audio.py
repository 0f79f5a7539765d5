"""A film's sound begins and ends with its pictures, and metadata are there from the header on."""

from __future__ import annotations

import math
from pathlib import Path

import av
import pytest
import torch
from longlive.longlive_core.video import Audio, VideoWriter, open_film, read_video
from torch import Tensor

from .films import SIZE, WORKFLOW, film_name, gliding, hear, tone, webm_blocks


@pytest.mark.slow
@pytest.mark.parametrize("fps", [24, 60])
@pytest.mark.parametrize(
    ("seconds", "rate", "channels"), [(1.0, 48_000, 1), (4.0, 44_100, 2), (4.0, 16_000, 1), (1.2, 10_000, 2)]
)
def test_sound_is_in_time_and_ends_with_the_film(
    tmp_path: Path, seconds: float, rate: int, channels: int, fps: int
) -> None:
    """A tone is heard where it was put, to 1 ms, and the sound lasts min(film, audio), to one AAC frame."""
    path = tmp_path / "film.mp4"
    with VideoWriter(path, width=SIZE, height=SIZE, fps=fps, audio=tone(seconds, rate, channels)) as writer:
        for piece in gliding(2 * fps).split(7):
            writer.write(piece)
    heard, heard_rate = hear(path)
    assert len(heard) == channels
    assert heard.shape[1] / heard_rate == pytest.approx(min(2, seconds), abs=1024 / heard_rate)
    for channel in heard:
        assert int((channel.abs() > 0.2).nonzero()[0]) / heard_rate == pytest.approx(0.5, abs=0.001)
    with av.open(str(path)) as container:
        starts = [stream.start_time for stream in container.streams]
    assert starts == [0, 0]
    assert len(read_video(path)) == 2 * fps


@pytest.mark.parametrize(("codec", "seconds"), [("vp9", 1.0), ("vp9", 4.0), ("prores", 1.0), ("prores", 4.0)])
def test_sound_of_other_containers_is_in_time(tmp_path: Path, codec: str, seconds: float) -> None:
    """Opus in webm goes on in silence to the film's end; PCM in mov ends with the sound. Both begin on time."""
    path = tmp_path / film_name(codec)
    with open_film(path, width=SIZE, height=SIZE, codec=codec, audio=tone(seconds, 44_100, 2)) as writer:
        for piece in gliding(48).split(7):
            writer.write(piece)
    heard, rate = hear(path)
    length = 2 if codec == "vp9" else min(2, seconds)
    assert heard.shape[1] / rate == pytest.approx(length, abs=0.045)
    for channel in heard:
        loud = (channel.abs() > 0.2).nonzero()
        assert int(loud[0]) / rate == pytest.approx(0.5, abs=0.001)
        assert int(loud[-1]) / rate == pytest.approx(0.55, abs=0.002)
    with av.open(str(path)) as container:
        assert [stream.start_time for stream in container.streams] == [0, 0]
    assert len(read_video(path)) == 48


@pytest.mark.parametrize("fps", [24, 30, 60])
@pytest.mark.parametrize(("seconds", "rate", "channels"), [(1.0, 44_100, 2), (4.0, 48_000, 1), (0.01, 16_000, 1)])
def test_blocks_of_a_webm_are_in_order_of_time(
    tmp_path: Path, seconds: float, rate: int, channels: int, fps: int
) -> None:
    """Pictures and sound are interleaved by the time stamps of the blocks, and every picture has its own time."""
    path = tmp_path / "film.webm"
    sound = Audio(torch.zeros(channels, round(seconds * rate)) + 0.01, rate)
    with open_film(path, width=SIZE, height=SIZE, fps=fps, codec="vp9", audio=sound) as writer:
        for piece in gliding(fps).split(7):
            writer.start_block()
            writer.write(piece)
    blocks = list(webm_blocks(path.read_bytes()))
    times = [time for _, time in blocks]
    assert times == sorted(times)
    assert {track for track, _ in blocks} == {1, 2}
    assert [time for track, time in blocks if track == 1] == [round(1000 * n / fps) for n in range(fps)]


def test_no_sound_is_no_error(tmp_path: Path) -> None:
    """Audio of no samples makes a film that plays, and so does a film of no frames, silent."""
    for name, frames, samples in (("mute", 30, 0), ("empty", 0, 48_000)):
        sound = Audio(torch.zeros(1, samples), 48_000)
        with VideoWriter(tmp_path / name, width=SIZE, height=SIZE, audio=sound) as writer:
            writer.write(gliding(frames))
        assert len(read_video(tmp_path / name)) == frames
        assert hear(tmp_path / name)[0].shape == (1, 0)


@pytest.mark.parametrize(
    ("waveform", "rate", "message"),
    [
        (torch.zeros(6, 100), 48_000, r"\[6, 100\]; a film takes float32 \[1 or 2 channels"),
        (torch.zeros(100), 48_000, r"\[100\]; a film takes"),
        (torch.zeros(1, 100, dtype=torch.float64), 48_000, "float64"),
        (torch.full((1, 9), math.nan), 48_000, "NaN"),
        (torch.zeros(1, 100), 0, "rate 0 must be positive"),
    ],
)
def test_sound_of_another_kind_is_refused(waveform: Tensor, rate: int, message: str) -> None:
    """What AAC in mp4 cannot take is an error before there is a film."""
    with pytest.raises(ValueError, match=message):
        Audio(waveform, rate)


def test_metadata_are_in_the_file_from_the_header_on(tmp_path: Path) -> None:
    """Text of any script comes back letter by letter, while the film is made and after."""
    path = tmp_path / "film.mp4"
    with VideoWriter(path, width=SIZE, height=SIZE, metadata=WORKFLOW) as writer:
        with av.open(str(path)) as container:
            assert container.metadata.items() >= WORKFLOW.items()
        writer.write(gliding(8))
    with av.open(str(path)) as container:
        assert container.metadata.items() >= WORKFLOW.items()
