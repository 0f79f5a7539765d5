"""Clips that ranks encode, for `test_clip_ranks.py`; run by the `work.py` of `parallel`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from longlive.longlive_core.parallel import Leader, Mesh, Ranks, follow
from longlive.longlive_core.training.clip_ranks import LedEncoder, RankEncoder, ReadClip
from longlive.longlive_core.types import LatentShape
from longlive.longlive_core.vae import VAEConfig, WanVAE
from longlive.longlive_core.vae.encode_clip import encode_chunks
from longlive.longlive_core.video.clip import ClipStopped
from torch import Tensor

CONFIG = VAEConfig(dim=4, dec_dim=4, latent_channels=4, dim_mult=(1, 2, 2, 2), mean=(0.0,) * 4, std=(1.0,) * 4)


def encoder(_: Ranks) -> RankEncoder:
    """A random VAE."""
    torch.manual_seed(0)
    return RankEncoder(WanVAE(CONFIG).requires_grad_(False))


def clips(lengths: list[int]) -> Iterator[ReadClip]:
    """Clips of noise of several sizes, larger than the frames that are encoded; 0 for a stop."""
    for number, length in enumerate(lengths):
        if not length:
            raise ClipStopped
        height, width = (36, 48) if number % 2 else (32, 64)
        frames = torch.randint(256, (length, height, width, 3), generator=torch.Generator().manual_seed(number))
        yield ReadClip(frames.to(torch.uint8), LatentShape(1, 4, 8, 2, 2 + number % 2))


def encode(mesh: Mesh, _: Path, runs: list[list[int]]) -> list[list[Tensor]]:
    """The latents of clips of so many frames, on rank 0; up to the stop of a run."""
    if mesh.sequence.rank:
        follow(mesh.sequence)
        return []
    leader = Leader(mesh.sequence)
    led = LedEncoder(leader, encoder(mesh.sequence).vae, encoder)
    results = list[list[Tensor]]()
    for lengths in runs:
        results.append([])
        try:
            for latents in led.encode(clips(lengths)):
                results[-1].append(latents)
        except ClipStopped:
            assert 0 in lengths
    leader.stop()
    return results


def encoded(lengths: list[int]) -> list[Tensor]:
    """The latents of clips, by this process alone."""
    vae = encoder(Ranks()).vae
    found = list[Tensor]()
    for clip in clips(lengths):
        chunks = (clip.frames[:1], *clip.frames[1:].split(4))
        found.append(torch.cat(list(encode_chunks(chunks, vae, clip.shape, lambda: None)), dim=2))
    return found
