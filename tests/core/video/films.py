"""Short films to write, and what lies on disk of them."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import torch
from longlive.longlive_core.video import CODECS, Audio
from torch import Tensor

SIZE = 64

# Those that make a file, and that this av can encode.
OFFERED = [name for name, codec in CODECS.items() if set(codec.encoders) & av.codecs_available]

WORKFLOW = {"prompt": json.dumps({"1": {"text": "ein Mädchen, 雨"}}), "workflow": json.dumps({"nodes": [0] * 500})}


def film_name(codec: str) -> str:
    return "film" + CODECS[codec].extension


def moving(frames: int, seed: int = 0) -> Tensor:
    """A bright square over noise, `[frames, SIZE, SIZE, 3]`: every frame is another, and none compresses to nothing."""
    film = torch.randint(
        0, 90, (frames, SIZE, SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    for i in range(frames):
        film[i, 8:40, i % 24 : i % 24 + 32] = torch.tensor([230, 60, 40], dtype=torch.uint8)
    return film


def gliding(frames: int, phase: float = 0.0) -> Tensor:
    """Waves that move, smooth as a film is, `[frames, SIZE, SIZE, 3]`: what is lost here, the codec has lost."""
    steps = torch.arange(SIZE) / 9
    time = torch.arange(frames).view(-1, 1, 1) / 5 + phase
    waves = [torch.sin(steps + time + hue) * torch.cos(steps[:, None] - time * hue) for hue in (0.0, 0.4, 0.8)]
    return (torch.stack(waves, dim=-1) * 90 + 128).to(torch.uint8)


def psnr(played: Tensor, film: Tensor) -> float:
    """In dB, over all frames and channels."""
    return 10 * math.log10(255**2 / max((played.float() - film.float()).square().mean().item(), 1e-9))


def tone(seconds: float, rate: int, channels: int, at: float = 0.5) -> Audio:
    """Silence, but for 50 ms of 1 kHz that begin `at` seconds."""
    waveform = torch.zeros(channels, round(seconds * rate))
    start, samples = round(at * rate), rate // 20
    waveform[:, start : start + samples] = 0.8 * torch.sin(torch.arange(samples) * 2 * math.pi * 1000 / rate)
    return Audio(waveform, rate)


def hear(path: Path) -> tuple[Tensor, int]:
    """The sound that a film plays `[C, S]`, and its rate."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        heard: list[Tensor] = []
        for frame in container.decode(stream):
            samples = torch.from_numpy(frame.to_ndarray())
            planar = samples if frame.format.is_planar else samples.view(-1, stream.channels).T
            heard.append(planar.float() if samples.is_floating_point() else planar / 32768)
        return (torch.cat(heard, dim=1) if heard else torch.zeros(stream.channels, 0)), stream.rate


def whole_pieces(data: bytes) -> list[tuple[int, int]]:
    """(end in bytes, frames) of every whole fragment of an mp4 or mov, or cluster of a webm."""
    return clusters(data) if data.startswith(b"\x1a\x45\xdf\xa3") else fragments(data)


def fragments(data: bytes) -> list[tuple[int, int]]:
    """(end in bytes, frames) of every whole fragment, read box by box; in a complete film they are in an mdat box."""
    found, at, samples = list[tuple[int, int]](), 0, 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"mdat" and data[at + 12 : at + 16] in (b"ftyp", b"moov"):
            at += 8
            continue
        if at + size > len(data):
            break
        if kind == b"moof":
            header = data.index(b"tfhd", at)
            trun = data.index(b"trun", header)
            is_video = data[header + 8 : header + 12] == b"\0\0\0\1"
            samples = int.from_bytes(data[trun + 8 : trun + 12], "big") if is_video else 0
        elif kind == b"mdat":
            found.append((at + size, samples))
        at += size
    return found


def clusters(data: bytes) -> list[tuple[int, int]]:
    """(end in bytes, frames) of every whole cluster; the frames are the simple blocks of track 1."""
    found: list[tuple[int, int]] = []
    (_, body, end), *_ = elements(data, 0)
    (segment, body, _), *_ = elements(data, end)
    assert segment == 0x18538067
    for kind, start, end in elements(data, body):
        if kind == 0x1F43B675 and end <= len(data):
            blocks = elements(data[:end], start)
            found.append((end, sum(kind == 0xA3 and data[at] == 0x81 for kind, at, _ in blocks)))
    return found


def webm_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """(track, time stamp in ms) of the blocks of a webm, in the order of the file."""
    (_, _, end), *_ = elements(data, 0)
    (_, body, _), *_ = elements(data, end)
    for kind, start, stop in elements(data, body):
        time = 0
        for part, at, last in elements(data[:stop], start) if kind == 0x1F43B675 else ():
            if part == 0xE7:
                time = int.from_bytes(data[at:last], "big")
            if part == 0xA0:  # a group with one block
                at = next(inner for name, inner, _ in elements(data[:last], at) if name == 0xA1)
            if part in (0xA0, 0xA3):
                yield data[at] & 0x7F, time + int.from_bytes(data[at + 1 : at + 3], "big", signed=True)


def elements(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """(id, start of the body, end) of the EBML elements from `at` on; a torn one ends behind the data."""
    while at + 2 <= len(data):
        id_bytes = 9 - data[at].bit_length()
        size_at = at + id_bytes
        if size_at >= len(data):
            return
        size_bytes = 9 - data[size_at].bit_length()
        if size_at + size_bytes > len(data):
            return
        size = int.from_bytes(data[size_at : size_at + size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
        body = size_at + size_bytes
        yield int.from_bytes(data[at:size_at], "big"), body, body + size
        at = body + size
