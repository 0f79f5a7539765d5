"""A clip that several processes encode."""

from __future__ import annotations

from pathlib import Path

import torch
from longlive.longlive_core.parallel import Mesh
from longlive.longlive_core.types import LatentShape
from longlive.longlive_core.vae import VAEConfig, WanVAE
from longlive.longlive_core.vae.encode_ranks import encode_on_ranks
from torch import Tensor


def encode(mesh: Mesh, _: Path, frames: Tensor, halo: int) -> tuple[Tensor, int]:
    """The latents of a clip that only the first rank has, and how many latent frames this rank encoded."""
    torch.manual_seed(0)
    vae = WanVAE(
        VAEConfig(dim=4, dec_dim=4, latent_channels=4, dim_mult=(1, 2, 2, 2), mean=(0.0,) * 4, std=(1.0,) * 4)
    ).requires_grad_(False)
    shape = LatentShape(1, 4, 2, frames.shape[1] // 16, frames.shape[2] // 16)
    encoded: list[None] = []
    clip = frames if mesh.sequence.rank == 0 else None
    latents = encode_on_ranks(clip, len(frames), vae, shape, mesh.sequence, lambda: encoded.append(None), halo)
    return latents, len(encoded)
