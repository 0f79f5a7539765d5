"""Videos as other programs write them: tags, pixel shapes, rotations, covers, rates and sounds."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

# BT.709 R'G'B' of eight patches, four in a row.
PATCHES = torch.tensor(
    [
        *([200, 30, 40], [40, 160, 60], [40, 60, 190], [224, 172, 105]),
        *([128, 128, 128], [240, 240, 240], [20, 20, 20], [250, 200, 40]),
    ]
)
SIDE = 32

# Nearly lossless.
DELIVERY: dict[str, dict[str, str]] = {
    "libx264": {"crf": "1", "bf": "0"},
    "libx265": {"x265-params": "lossless=1:log-level=error:bframes=0"},
}

Tags = tuple[int, int, int, int]
"""Primaries, transfer and matrix as in H.273, and the range: 1 limited, 2 full."""

# The patches as Y'CbCr, computed by the zscale filter of ffmpeg 5.1 (HLG: by the formulas of BT.2100), with white at
# 203 cd/m². Pixel format, tags, codes.
KINDS: dict[str, tuple[str, Tags, str]] = {
    "hlg": (
        "yuv420p10le",
        (9, 18, 9, 1),
        "344 432 687, 480 400 431, 276 721 500, 590 403 555, 456 512 512, 700 512 512, 125 512 512, 633 324 554",
    ),
    "pq": (
        "yuv420p10le",
        (9, 16, 9, 1),
        "358 463 596, 439 456 478, 317 612 508, 497 465 532, 429 512 512, 559 512 512, 163 512 512, 521 423 533",
    ),
    "bt2020": (
        "yuv420p10le",
        (9, 14, 9, 1),
        "385 431 683, 534 401 434, 307 719 500, 682 394 572, 504 512 512, 888 512 512, 133 512 512, 763 294 576",
    ),
    "bt2020 matrix alone": (
        "yuv420p10le",
        (1, 1, 9, 1),
        "323 446 809, 485 395 315, 279 750 458, 688 369 613, 504 512 512, 888 512 512, 133 512 512, 764 206 622",
    ),
    "bt601": (
        "yuv420p",
        (6, 6, 6, 1),
        "59 124 226, 96 112 51, 69 191 108, 171 91 157, 126 128 128, 222 128 128, 33 128 128, 186 52 162",
    ),
    "bt601 matrix alone": (
        "yuv420p",
        (2, 2, 6, 1),
        "86 107 202, 113 102 82, 75 188 110, 171 91 156, 126 128 128, 222 128 128, 33 128 128, 185 50 161",
    ),
    "pal": (
        "yuv420p",
        (5, 6, 5, 1),
        "86 108 200, 116 98 89, 75 188 110, 170 91 155, 126 128 128, 222 128 128, 33 128 128, 183 46 161",
    ),
    "bt709": (
        "yuv420p",
        (1, 1, 1, 1),
        "73 115 202, 125 96 79, 72 187 114, 169 93 154, 126 128 128, 222 128 128, 33 128 128, 187 53 156",
    ),
    "display p3": (
        "yuv420p10le",
        (12, 1, 1, 1),
        "344 453 742, 531 396 394, 288 735 466, 678 392 595, 504 512 512, 888 512 512, 133 512 512, 758 287 602",
    ),
    "full range": (
        "yuv420p",
        (1, 1, 1, 2),
        "67 114 213, 127 92 73, 65 195 112, 178 89 157, 128 128 128, 240 128 128, 20 128 128, 199 42 160",
    ),
    "full range bt601": (
        "yuv420p",
        (2, 2, 6, 2),
        "82 104 212, 113 98 76, 69 196 107, 180 86 159, 128 128 128, 240 128 128, 20 128 128, 197 40 166",
    ),
}
KINDS["untagged"] = ("yuv420p", (2, 2, 2, 0), KINDS["bt601 matrix alone"][2])


def patch_frame(pixels: str, codes: str) -> VideoFrame:
    """A frame of 4 × 2 patches of SIDE pixels, in a 4:2:0 format. codes: "Y Cb Cr, Y Cb Cr, …"."""
    grid = np.array([[int(code) for code in patch.split()] for patch in codes.split(",")]).reshape(2, 4, 3)
    luma = grid[..., 0].repeat(SIDE, 0).repeat(SIDE, 1)
    chroma = [grid[..., plane].repeat(SIDE // 2, 0).repeat(SIDE // 2, 1) for plane in (1, 2)]
    stacked = np.concatenate([plane.reshape(-1) for plane in (luma, *chroma)]).reshape(3 * SIDE, 4 * SIDE)
    if "10" in pixels:
        return VideoFrame.from_ndarray(stacked.astype(np.uint16), format=pixels)
    return VideoFrame.from_ndarray(stacked.astype(np.uint8), format=pixels)


def patches_of(frame: Tensor) -> Tensor:
    """The colours of the patches `[8, 3]` in a frame `[H, W, 3]`."""
    middle = SIDE // 2
    return torch.stack([frame[r * SIDE + middle, c * SIDE + middle].int() for r in range(2) for c in range(4)])


def write_patches(path: Path, kind: str, frames: int = 3, codes: str = "", codec: str = "ffv1") -> Path:
    """Writes the patches of a kind with its tags, lossless."""
    pixels, tags, known = KINDS[kind]
    return write_frames(path, [patch_frame(pixels, codes or known)] * frames, pixels=pixels, tags=tags, codec=codec)


def write_frames(
    path: Path,
    frames: Sequence[VideoFrame],
    *,
    pixels: str = "yuv420p",
    tags: Tags = (2, 2, 2, 0),
    codec: str = "ffv1",
    times: Sequence[Fraction] | None = None,
    fps: int | Fraction = 24,
    sample_aspect: Fraction | None = None,
    cover: bool = False,
    sound: tuple[NDArray[np.float32], int, str, float] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes frames at `times` in seconds (a constant rate if None), an optional cover picture, and a sound.

    sound: samples `[channels, S]` in [-1, 1], rate, codec and the time in s at which it starts. options: of the
    encoder.
    """
    with av.open(str(path), "w") as container:
        heard = _sound_stream(container, sound) if sound else None
        stream = container.add_stream(codec, rate=Fraction(fps), width=frames[0].width, height=frames[0].height)
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        context.pix_fmt = pixels
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        stream.options = {**DELIVERY.get(codec, {}), **(options or {})}
        context.time_base = Fraction(1, 90_000)
        if sample_aspect:
            context.sample_aspect_ratio = sample_aspect
        art = _cover_stream(container) if cover else None
        if sound and heard:
            _write_sound(container, heard, sound)
        for number, frame in enumerate(frames):
            time = times[number] if times else Fraction(number) / Fraction(fps)
            frame.pts, frame.time_base = round(time * 90_000), Fraction(1, 90_000)
            frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range = tags
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if art:
            picture = VideoFrame.from_ndarray(np.full((80, 80, 3), 250, np.uint8), format="rgb24")
            container.mux(art.encode(picture.reformat(format="yuvj420p")))
            container.mux(art.encode(None))
    return path


def _cover_stream(container: OutputContainer) -> VideoStream:
    stream = container.add_stream("mjpeg", rate=1, width=80, height=80)
    assert isinstance(stream, VideoStream)
    stream.codec_context.pix_fmt = "yuvj420p"
    stream.disposition = Disposition.attached_pic
    return stream


def _sound_stream(container: OutputContainer, sound: tuple[NDArray[np.float32], int, str, float]) -> AudioStream:
    samples, rate, codec, _ = sound
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(samples)]
    stream = container.add_stream(codec, rate=rate, layout=layout)
    assert isinstance(stream, AudioStream)
    return stream


def _write_sound(
    container: OutputContainer, stream: AudioStream, sound: tuple[NDArray[np.float32], int, str, float]
) -> None:
    samples, rate, _, start = sound
    for at in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, at : at + 1024].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(piece, format="flt", layout=stream.layout.name)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), at + round(start * rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def bar(time: int) -> Tensor:
    """A bright bar on grey `[128, 128, 3]`, which moves 4 pixels to the right in each field."""
    pixels = torch.full((128, 128, 3), 40, dtype=torch.uint8)
    pixels[:, 4 * time : 4 * time + 16] = 220
    return pixels


def write_interlaced(path: Path, frames: int) -> Path:
    """Writes the moving bar in fields, the lower one first: frame n has those of `bar(2n)` and `bar(2n + 1)`."""
    whole = [bar(2 * number) for number in range(frames)]
    for number, pixels in enumerate(whole):
        pixels[::2] = bar(2 * number + 1)[::2]
    return write_frames(path, [picture(pixels) for pixels in whole], codec="libx264", options={"x264-params": "bff=1"})


def greys(levels: Sequence[int], width: int = 32, height: int = 32) -> list[VideoFrame]:
    """Flat frames with these levels of full-range grey."""
    return [
        VideoFrame.from_ndarray(np.full((height, width, 3), level, np.uint8), format="rgb24").reformat(format="yuv420p")
        for level in levels
    ]


def picture(pixels: Tensor) -> VideoFrame:
    """A frame of `[H, W, 3]` uint8 in yuv420p."""
    return VideoFrame.from_ndarray(pixels.numpy(), format="rgb24").reformat(format="yuv420p")


def beep(seconds: float, rate: int, channels: int, at: float, sounding: Sequence[int] = ()) -> NDArray[np.float32]:
    """Silence `[channels, S]` with 100 ms of 1 kHz from second `at`, in the channels `sounding` (all if empty)."""
    samples = np.zeros((channels, round(seconds * rate)), np.float32)
    wave = (0.5 * np.sin(np.arange(rate // 10) * 2 * math.pi * 1000 / rate)).astype(np.float32)
    for channel in sounding or range(channels):
        samples[channel, round(at * rate) : round(at * rate) + len(wave)] = wave
    return samples


def onset(samples: Tensor, rate: int) -> float:
    """The second at which a channel `[S]` becomes loud; NaN if it does not."""
    loud = (samples.abs() > 0.1).nonzero()
    return float(loud[0]) / rate if len(loud) else math.nan


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix (a, b, c, d) into the video track of an mp4: (x, y) is shown at (ax + cy, bx + dy)."""
    data = bytearray(path.read_bytes())
    header = next(_video_tracks(data))
    a, b, c, d = (value << 16 for value in matrix)
    data[header + 44 : header + 80] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    return path


def _video_tracks(data: bytes | bytearray) -> Iterator[int]:
    """The positions of the tkhd boxes (version 0) of tracks with a width."""
    at = data.find(b"tkhd")
    while at >= 0:
        if any(data[at + 80 : at + 84]):
            yield at
        at = data.find(b"tkhd", at + 4)
