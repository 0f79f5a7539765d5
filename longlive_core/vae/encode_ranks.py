"""Encoding by several ranks: windows of one clip, of nearly the same number of frames, or a clip for each rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..parallel import Ranks, all_gather_shares, scatter_parts
from ..types import TIME_FACTOR, LatentShape, latent_frames
from .encode_clip import ChunkEncoder, encode_chunks
from .halo import ENCODER_HALO, balanced_windows


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank encodes: `frames` video frames of (height, width) `video`, 0 of them for a rank without work.

    shape: of the latents, for any number of frames. drop: latent frames of the result before the first one to keep.
    """

    frames: int
    video: tuple[int, int]
    shape: LatentShape
    drop: int = 0

    @property
    def latents(self) -> LatentShape:
        """The shape of what is kept."""
        return self.shape.with_frames(latent_frames(self.frames) - self.drop if self.frames else 0)


def encode_shares(
    parts: Sequence[Tensor] | None,
    shares: Sequence[Share],
    vae: ChunkEncoder,
    ranks: Ranks,
    on_latent_frame: Callable[[], None] = lambda: None,
) -> list[Tensor]:
    """Encodes what each rank has → normalised latents `[1, C, F, h, w]` of all, on every rank, float32 on the CPU.

    parts: `[T, H, W, 3]` uint8 for each rank; only the first rank has them, and sends each rank its own. shares: of all
    ranks, on every rank. on_latent_frame: called before each latent frame; its exceptions pass through.
    """
    own = shares[ranks.rank]
    sizes = [(share.frames, *share.video, 3) for share in shares]
    clip = scatter_parts(parts, sizes, torch.empty(0, dtype=torch.uint8), ranks)
    chunks = (clip[:1], *clip[1:].split(TIME_FACTOR)) if own.frames else ()
    latents = [
        torch.empty(own.shape.with_frames(0).as_tuple()),
        *encode_chunks(chunks, vae, own.shape, on_latent_frame),
    ]
    flat = torch.cat([latents[0], *latents[1 + own.drop :]], dim=2).flatten()
    shapes = [share.latents.as_tuple() for share in shares]
    counts = [prod(shape) for shape in shapes]
    gathered = all_gather_shares(flat, ranks, 0, counts).split(counts)
    return [part.view(shape) for part, shape in zip(gathered, shapes, strict=True)]


def encode_on_ranks(
    frames: Tensor | None,
    count: int,
    vae: ChunkEncoder,
    shape: LatentShape,
    ranks: Ranks,
    on_latent_frame: Callable[[], None],
    halo: int = ENCODER_HALO,
) -> Tensor:
    """Encodes a clip → normalised latents `[1, C, F, h, w]` on every rank, float32 on the CPU.

    frames: `[T, H, W, 3]` uint8 at the size of the film, T = 1 + 4 (F − 1); only the first rank reads the video, and
    sends each rank its window. count: T, on every rank. halo: latent frames that a rank encodes before its own; with 28
    the latents are those of the whole clip, and with fewer the first ones of each rank differ. on_latent_frame: called
    before each latent frame; its exceptions pass through. Raises ValueError for fewer latent frames than ranks, and
    unless T is 1 + 4 k.
    """
    if count % TIME_FACTOR != 1:
        raise ValueError(f"a clip of {count} frames cannot be encoded: use 1 + {TIME_FACTOR} k frames")
    windows = balanced_windows(latent_frames(count), ranks.size, halo)
    parts = None if frames is None else [frames[slice(*window.video)] for window in windows]
    size = (shape.pixels.height, shape.pixels.width)
    shares = [Share(window.frames, size, shape, window.drop) for window in windows]
    return torch.cat(encode_shares(parts, shares, vae, ranks, on_latent_frame), dim=2)
