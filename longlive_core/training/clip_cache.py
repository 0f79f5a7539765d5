"""Encoding of a data set's videos, each once: their latents are files in a folder, named by what they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..types import BLOCK_FRAMES, FPS, SPACE_FACTOR, TIME_FACTOR, LatentShape
from ..units import plural
from ..vae.encode_clip import ChunkEncoder, encode_chunks
from ..video.clip import Clip, ClipStopped
from ..weights.safetensors_writer import replace_when_complete
from .checkpoint import disk_errors
from .clip_layout import Layout
from .clip_ranks import LedEncoder, ReadClip
from .clip_scan import Scan, ScannedVideo

FORMAT = "longlive-clip-1"
NUMBER_BYTES = 2  # latents are stored as float16


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A training clip whose latents `[C, F, h, w]` are in a file. layout: its blocks and prompts."""

    name: str
    file: Path
    layout: Layout
    size: tuple[int, int]

    @property
    def cuts(self) -> tuple[bool, ...]:
        """Whether each block begins with a cut."""
        return tuple(block.cut for block in self.layout)

    def latents(self) -> Tensor:
        """Reads the latents, float32 on the CPU."""
        return load_file(self.file)["latents"].float()


def encode_videos(
    scan: Scan,
    vae: ChunkEncoder,
    vae_digest: str,
    channels: int,
    folder: Path,
    log: Callable[[str], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    led: LedEncoder | None = None,
) -> tuple[EncodedClip, ...]:
    """Encodes the training clips that are not in the folder yet.

    vae_digest: of everything that decides the latents. led: encodes in place of `vae`, by several ranks. Raises
    ClipStopped, which keeps the clips that are done, DiskFullError, and RankError.
    """
    clips = clips_of(scan, vae_digest, folder)
    todo = [(video, clip) for video, clip in clips if not _is_complete(clip.file)]
    if led is None:
        latents = _encoded_here(todo, vae, channels, should_stop)
    else:
        latents = led.encode(_read(todo, channels, should_stop))
    for number, ((video, clip), tensor) in enumerate(zip(todo, latents, strict=True), 1):
        _save(clip, video, tensor)
        if number == len(todo) or todo[number][0] is not video:
            last = max(index for index, (other, _) in enumerate(clips, 1) if other is video)
            log(f"encoded {plural(last, 'clip')} of {scan.clips}: {video.path.name}")
    return tuple(clip for _, clip in clips)


def clips_of(scan: Scan, vae_digest: str, folder: Path) -> list[tuple[ScannedVideo, EncodedClip]]:
    """The training clips with their files in the folder, whether they are there or not."""
    return [
        (video, EncodedClip(video.path.name, folder / _file_name(video, layout, vae_digest), layout, video.size))
        for video in scan.videos
        for layout in video.clips
    ]


def all_encoded(scan: Scan, vae_digest: str, folder: Path) -> bool:
    """Whether nothing is left to encode."""
    return all(_is_complete(clip.file) for _, clip in clips_of(scan, vae_digest, folder))


def _frames(
    todo: Sequence[tuple[ScannedVideo, EncodedClip]], channels: int, should_stop: Callable[[], bool]
) -> Iterator[tuple[Iterator[Tensor], LatentShape]]:
    """Yields the chunks of each clip and the shape of its latents; each video is read once."""
    for video, clips in groupby(todo, key=lambda item: item[0]):
        frames = enumerate(chain.from_iterable(Clip(video.path, FPS, should_stop).pieces()))
        height, width = (side // SPACE_FACTOR for side in video.size)
        for _, clip in clips:
            yield _chunks(frames, clip.layout), LatentShape(1, channels, BLOCK_FRAMES, height, width)


def _encoded_here(
    todo: Sequence[tuple[ScannedVideo, EncodedClip]],
    vae: ChunkEncoder,
    channels: int,
    should_stop: Callable[[], bool],
) -> Iterator[Tensor]:
    """Yields the latents of each clip, `[1, C, F, h, w]`."""
    for chunks, shape in _frames(todo, channels, should_stop):
        yield torch.cat(list(encode_chunks(chunks, vae, shape, partial(_check, should_stop))), 2)


def _read(
    todo: Sequence[tuple[ScannedVideo, EncodedClip]], channels: int, should_stop: Callable[[], bool]
) -> Iterator[ReadClip]:
    """Yields each clip with all of its frames."""
    for chunks, shape in _frames(todo, channels, should_stop):
        frames = torch.cat(list(chunks))
        _check(should_stop)
        yield ReadClip(frames, shape)


def _save(clip: EncodedClip, video: ScannedVideo, latents: Tensor) -> None:
    tensor = latents[0].half().contiguous()
    with disk_errors(clip.file, NUMBER_BYTES * tensor.numel()):
        clip.file.parent.mkdir(parents=True, exist_ok=True)
        with replace_when_complete(clip.file, overwrite_part=True) as part:
            save_file({"latents": tensor}, part, {"format": FORMAT, "video": video.path.name})


def _chunks(frames: Iterator[tuple[int, Tensor]], layout: Layout) -> Iterator[Tensor]:
    """The frames of the blocks of a clip as the encoder takes them: 1, then 4 at a time."""
    size = 1
    wanted = (frame for block in layout for frame in _taken(frames, block.start, block.frames))
    while piece := list(islice(wanted, size)):
        yield torch.stack(piece)
        size = TIME_FACTOR


def _taken(frames: Iterator[tuple[int, Tensor]], start: int, count: int) -> Iterator[Tensor]:
    for index, frame in frames:
        if index >= start:
            yield frame
        if index == start + count - 1:
            return


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise ClipStopped


def _is_complete(file: Path) -> bool:
    """Whether a clip is encoded. A file that cannot be read is encoded again."""
    if not file.is_file():
        return False
    try:
        return "latents" in load_file(file)
    except SafetensorError:
        return False


def _file_name(video: ScannedVideo, layout: Layout, vae_digest: str) -> str:
    """Names the latents of a clip: they follow from the file's content, the frames, the size and the encoder."""
    frames = [(block.start, block.frames) for block in layout]
    key = hashlib.sha256(f"{FORMAT} {video.digest} {frames} {video.size} {vae_digest}".encode()).hexdigest()[:16]
    return f"{video.path.stem[:40]}-{key}.safetensors"
