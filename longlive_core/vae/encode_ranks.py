"""Encoding of a clip that several ranks share: each its own window, all of nearly the same number of video frames."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..parallel import Ranks, all_gather_shares, scatter_parts
from ..types import TIME_FACTOR, LatentShape, latent_frames
from .encode_clip import ChunkEncoder, encode_chunks
from .halo import ENCODER_HALO, balanced_windows


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
    own = windows[ranks.rank]
    height, width = shape.pixels.height, shape.pixels.width
    parts = None if frames is None else [frames[slice(*window.video)] for window in windows]
    sizes = [(window.frames, height, width, 3) for window in windows]
    clip = scatter_parts(parts, sizes, torch.empty(0, dtype=torch.uint8), ranks)
    chunks = (clip[:1], *clip[1:].split(TIME_FACTOR))
    latents = list(encode_chunks(chunks, vae, shape, on_latent_frame))[own.drop :]
    shares = [window.keep[1] - window.keep[0] for window in windows]
    return all_gather_shares(torch.cat(latents, dim=2), ranks, 2, shares)
