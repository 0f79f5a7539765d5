"""A video from elsewhere is read as its author saw it: colours, shape, orientation and time."""

from __future__ import annotations

import os
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.video.clip import Clip
from PIL import Image
from torch import Tensor

from .clips import (
    KINDS,
    PATCHES,
    bar,
    beep,
    greys,
    patches_of,
    picture,
    turn,
    write_frames,
    write_interlaced,
    write_patches,
)


def shown(path: Path, fps: int = 24) -> Tensor:
    return torch.cat(list(Clip(path, fps).pieces()))


@pytest.mark.parametrize("kind", list(KINDS))
def test_colours_are_read_as_tagged(tmp_path: Path, kind: str) -> None:
    """Eight patches come back within 3 levels from every transfer, matrix, range and set of primaries."""
    frame = shown(write_patches(tmp_path / "clip.mkv", kind))[1]
    assert (patches_of(frame) - PATCHES).abs().max() <= 3


@pytest.mark.parametrize("codec", ["libx265", "libx264"])
def test_colours_of_delivery_codecs_are_read_as_tagged(tmp_path: Path, codec: str) -> None:
    """The tags of H.265 and H.264 in an mp4 are those of the stream, and count as those of a lossless file."""
    kind = "pq" if codec == "libx265" else "full range"
    frame = shown(write_patches(tmp_path / "clip.mp4", kind, codec=codec))[1]
    assert (patches_of(frame) - PATCHES).abs().max() <= 4


@pytest.mark.parametrize("kind", ["hlg", "pq"])
def test_highlights_keep_their_gradation(tmp_path: Path, kind: str) -> None:
    """Greys up to 1000 cd/m² stay apart and grow, and what is brighter still is white."""
    lumas = {"hlg": [700, 740, 800, 860, 940, 940, 940, 940], "pq": [559, 600, 640, 680, 720, 723, 940, 940]}[kind]
    frame = shown(write_patches(tmp_path / "clip.mkv", kind, codes=", ".join(f"{y} 512 512" for y in lumas)))[1]
    levels = patches_of(frame)[:, 1].tolist()
    assert levels == sorted(levels)
    assert len(set(levels[:4])) == 4
    assert levels[0] == pytest.approx(240, abs=2) and levels[-1] == 255


def test_hdr_and_untagged_colours_are_noted(tmp_path: Path) -> None:
    """Tone mapping is said; a plain video gets no note."""
    notes = {kind: Clip(write_patches(tmp_path / f"{kind}.mkv", kind), 24).notes for kind in ("hlg", "pq", "bt709")}
    assert any("HLG" in note and "tone-mapped" in note for note in notes["hlg"])
    assert any("PQ" in note and "tone-mapped" in note for note in notes["pq"])
    assert not notes["bt709"]


def test_untagged_high_definition_is_bt709(tmp_path: Path) -> None:
    """A video without tags is BT.709 from 720 lines on."""
    frame = picture(torch.tensor([200, 30, 40], dtype=torch.uint8).expand(720, 64, 3).contiguous())
    as_709 = frame.reformat(format="rgb24").reformat(format="yuv420p", dst_colorspace=1)
    read = shown(write_frames(tmp_path / "clip.mkv", [as_709]))[0]
    assert (read[360, 32].int() - torch.tensor([200, 30, 40])).abs().max() <= 3


def disc(width: int, height: int, wide: float = 1.0) -> Tensor:
    """A disc in the middle of `[height, width, 3]`, for pixels `wide` times as wide as high."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    inside = (((x - width / 2) * wide) ** 2 + (y - height / 2) ** 2).sqrt() < 0.3 * min(height, width * wide)
    return (inside * 230).to(torch.uint8)[..., None].expand(-1, -1, 3).contiguous()


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(32, 27), (120, 214)),  # NTSC, 16:9
        (Fraction(8, 9), (135, 180)),  # NTSC, 4:3
        (Fraction(64, 45), (120, 256)),  # PAL, 16:9
        (Fraction(1, 2), (240, 180)),
        (Fraction(2), (120, 360)),
        (Fraction(1), (120, 180)),
    ],
    ids=str,
)
def test_anamorphic_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    """A disc is round, whatever the shape of the stored pixels, and no stored line or column is dropped."""
    frame = picture(disc(180, 120, float(aspect)))
    read = shown(write_frames(tmp_path / "clip.mp4", [frame] * 2, sample_aspect=aspect, codec="libx264"))[0]
    assert read.shape[:2] == pytest.approx(size, abs=1)
    rows, columns = (read[..., 1] > 115).any(1).sum(), (read[..., 1] > 115).any(0).sum()
    assert float(columns / rows) == pytest.approx(1, abs=0.03)


# A display matrix (a, b, c, d), and the corner of the shown picture that holds the stored top left.
TURNS = {
    "upright": ((1, 0, 0, 1), (0, 0)),
    "90": ((0, 1, -1, 0), (0, -1)),
    "180": ((-1, 0, 0, -1), (-1, -1)),
    "270": ((0, -1, 1, 0), (-1, 0)),
    "mirrored": ((-1, 0, 0, 1), (0, -1)),
    "upside down": ((1, 0, 0, -1), (-1, 0)),
    "transposed": ((0, 1, 1, 0), (0, 0)),
}


@pytest.mark.parametrize("name", list(TURNS))
def test_the_display_matrix_is_applied(tmp_path: Path, name: str) -> None:
    """Rotations and reflections of a phone's or a front camera's video are undone."""
    matrix, corner = TURNS[name]
    stored = torch.zeros(48, 64, 3, dtype=torch.uint8)
    stored[:16, :32] = 230  # wider than high, at the top left
    path = turn(write_frames(tmp_path / "clip.mp4", [picture(stored)] * 3, codec="libx264"), matrix)
    read = shown(path)[0]
    turned = bool(matrix[1])
    assert read.shape == ((64, 48, 3) if turned else (48, 64, 3))
    bright = read[..., 1] > 128
    near = [0 if side == 0 else size - 1 for side, size in zip(corner, bright.shape, strict=True)]
    assert bright[near[0], near[1]]
    rows, columns = int(bright.any(1).sum()), int(bright.any(0).sum())
    assert (rows, columns) == ((32, 16) if turned else (16, 32))


@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(1, 2)], ids=str)
def test_turned_anamorphic_pixels_become_square(tmp_path: Path, aspect: Fraction) -> None:
    """The shape of a pixel is that before the turn."""
    frames = [picture(disc(160, 120, float(aspect)))] * 3
    path = write_frames(tmp_path / "clip.mp4", frames, sample_aspect=aspect, codec="libx264")
    read = shown(turn(path, (0, 1, -1, 0)))[0]
    rows, columns = (read[..., 1] > 115).any(1).sum(), (read[..., 1] > 115).any(0).sum()
    assert float(columns / rows) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (-1, 0, 0, -1)])
def test_interlaced_pictures_are_whole(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """A frame shows its first field's moment in all its lines, at its time and upright, and a note says so."""
    path = turn(write_interlaced(tmp_path / "clip.mp4", 10), matrix)
    clip = Clip(path, 24)
    frames = torch.cat(list(clip.pieces()))
    frames = frames.flip(1, 2) if matrix[0] < 0 else frames
    assert len(frames) == 10
    for number in range(10):
        assert (frames[number].int() - bar(2 * number).int()).abs().float().mean() < 2, number
    assert [note for note in clip.notes if "deinterlaced" in note]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_a_cover_is_not_the_video(tmp_path: Path, suffix: str) -> None:
    """A cover picture beside the video is ignored, wherever the file lists it."""
    path = write_frames(tmp_path / f"clip.{suffix}", greys([40] * 30), codec="libx264", cover=True)
    assert shown(path).shape == (30, 32, 32, 3)


@pytest.mark.parametrize("suffix", ["m4a", "mp4"])
def test_a_song_with_a_cover_is_no_video(tmp_path: Path, suffix: str) -> None:
    """The cover of a song is refused as a video, by name."""
    import av

    from .clips import _cover_stream, _sound_stream, _write_sound  # pyright: ignore[reportPrivateUsage]

    path, sound = tmp_path / f"song.{suffix}", (beep(1, 44_100, 2, 0.2), 44_100, "aac", 0.0)
    with av.open(str(path), "w", format="mp4") as container:
        heard, art = _sound_stream(container, sound), _cover_stream(container)
        _write_sound(container, heard, sound)
        container.mux(art.encode(picture(torch.zeros(80, 80, 3, dtype=torch.uint8)).reformat(format="yuvj420p")))
        container.mux(art.encode(None))
    with pytest.raises(ValueError, match=rf"song\.{suffix} has no video"):
        Clip(path, 24)


def animation(path: Path, durations: list[int], *, lossless: bool) -> Path:
    """Grey frames of 10, 20, 30, …, each shown for so many milliseconds."""
    images = [Image.new("RGB", (40, 30), (10 * n + 10,) * 3) for n in range(len(durations))]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, lossless=lossless)
    return path


@pytest.mark.parametrize("suffix", ["webp", "gif", "png"])
@pytest.mark.parametrize("durations", [[40] * 10, [100, 50, 200, 100], [500, 500]], ids=["25 fps", "varied", "2 fps"])
def test_animations_keep_their_time(tmp_path: Path, suffix: str, durations: list[int]) -> None:
    """An animated webp, gif or png shows each picture for as long as it says."""
    frames = shown(animation(tmp_path / f"clip.{suffix}", durations, lossless=suffix == "webp"))
    assert len(frames) == round(sum(durations) * 24 / 1000)
    starts = [sum(durations[:n]) / 1000 for n in range(len(durations))]
    for n, level in enumerate(frames[:, 15, 20, 1].tolist()):
        allowed = {max(i for i, start in enumerate(starts) if start <= n / 24 + late) for late in (0, 1 / 24)}
        assert min(abs(level - 10 * i - 10) for i in allowed) <= 3


def test_a_gif_without_times_plays_as_in_a_browser(tmp_path: Path) -> None:
    """Frames of a gif that say less than 20 ms are shown for 100 ms."""
    clip = Clip(animation(tmp_path / "clip.gif", [10] * 12, lossless=False), 24)
    assert clip.frames == round(1.2 * 24) and clip.sound() is None


def test_transparent_animations_are_shown_on_black(tmp_path: Path) -> None:
    """What is transparent is black, never the colour hidden behind it, and a note says so."""
    images = [Image.new("RGBA", (40, 30), (200, 100, 50, 0)) for _ in range(3)]
    for number, image in enumerate(images):
        image.paste((10 * number, 200, 0, 255), (0, 0, 20, 30))
    path = tmp_path / "clip.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, lossless=True)
    clip = Clip(path, 24)
    frame = torch.cat(list(clip.pieces()))[0]
    assert frame[15, 30].tolist() == [0, 0, 0] and frame[15, 10].tolist() == [0, 200, 0]
    assert any("transparent" in note for note in clip.notes)


def nearest_levels(levels: list[int], times: list[Fraction], number: int) -> list[int]:
    """The levels of the source frames nearest to film frame `number` that begin at most a frame later."""
    time = Fraction(number, 24)
    early = [n for n, begin in enumerate(times) if begin <= time + Fraction(1, 23)]
    nearest = min(abs(times[n] - time) for n in early)
    return [levels[n] for n in early if abs(times[n] - time) <= nearest + Fraction(1, 10**6)]


RATES = [Fraction(25), Fraction(30), Fraction(60), Fraction(24000, 1001), Fraction(30000, 1001), Fraction(15), 120]


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_a_constant_rate_keeps_the_speed_and_is_noted(tmp_path: Path, rate: Fraction) -> None:
    """Each frame of the film is the frame nearest in time, and the note names both rates."""
    count = round(2 * rate)
    levels = [20 + 210 * n // count for n in range(count)]
    clip = Clip(write_frames(tmp_path / "clip.mp4", greys(levels), fps=rate, codec="libx264"), 24)
    frames = torch.cat(list(clip.pieces()))
    assert abs(len(frames) - 48) <= 1
    for n, frame in enumerate(frames):
        allowed = nearest_levels(levels, [Fraction(i) / rate for i in range(count)], n)
        assert min(abs(int(frame[16, 16, 1]) - level) for level in allowed) <= 3
    assert any("24 frames per second" in note and "speed" in note for note in clip.notes)


@pytest.mark.parametrize(
    "durations",
    [
        [1 / 60] * 60 + [1 / 10] * 10,
        [1 / 30, 1 / 15] * 20,
        [1.0, 1 / 24, 1 / 24, 0.5],
        [1 / 24] * 24 + [2.0] + [1 / 24],
    ],
    ids=["60 then 10", "alternating", "still first", "a gap"],
)
def test_a_variable_rate_keeps_its_time(tmp_path: Path, durations: list[float]) -> None:
    """A phone's or a screen recorder's variable rate is read by time stamps, never by counting."""
    times = [Fraction(sum(durations[:n])).limit_denominator(90_000) for n in range(len(durations))]
    levels = [20 + 200 * n // len(times) for n in range(len(times))]
    frames = shown(write_frames(tmp_path / "clip.mkv", greys(levels), times=times, fps=60))
    assert len(frames) >= (float(times[-1])) * 24
    for n, frame in enumerate(frames):
        jitter = (Fraction(-1, 500), Fraction(0), Fraction(1, 500))  # mkv has whole milliseconds
        allowed = [level for late in jitter for level in nearest_levels(levels, [time + late for time in times], n)]
        assert min(abs(int(frame[16, 16, 1]) - level) for level in allowed) <= 3


def test_a_part_of_a_video_is_read(tmp_path: Path) -> None:
    """A start and a duration in seconds select the frames in between, at their own times."""
    levels = [20 + 2 * n for n in range(96)]
    path = write_frames(tmp_path / "clip.mkv", greys(levels))
    clip = Clip(path, 24, start=1.0, duration=2.0)
    frames = torch.cat(list(clip.pieces()))
    assert len(frames) == 48
    assert (frames[:, 16, 16, 1].int() - torch.tensor(levels[24:72])).abs().max() <= 3


def test_a_video_in_memory_is_read(tmp_path: Path) -> None:
    """A buffer is read as a file is, as often as needed."""
    path = write_patches(tmp_path / "clip.mkv", "bt601", frames=30)
    clip = Clip(BytesIO(path.read_bytes()), 24)
    assert torch.equal(torch.cat(list(clip.pieces())), shown(path))
    assert torch.equal(torch.cat(list(clip.pieces(5))), shown(path)[5:])


@pytest.mark.linux
@pytest.mark.parametrize("name", ["shot 2: take 1.mkv", "shot:1.mkv", "http:1.mkv"])
def test_a_colon_is_part_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A relative name with a colon is a file: libav would take what stands before the colon for a protocol."""
    write_patches(tmp_path / "clip.mkv", "full range").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(shown(Path(name)))


@pytest.mark.linux
def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    """A pipe is refused at once: it may never have a first byte, and a video is read twice."""
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ValueError, match=r"pipe\.mp4 is no regular file.*copy it"):
        Clip(tmp_path / "pipe.mp4", 24)
