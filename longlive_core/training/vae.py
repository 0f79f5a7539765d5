"""Training of the embedded VAE on the synthetic world: images, then short clips, then clips of whole frames.

The curriculum makes training on two CPU cores feasible: an image autoencoder is inflated to a video autoencoder by
setting the kernel weights of past frames to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..mini.config import MINI_VAE
from ..types import FPS
from ..vae import VAEConfig, WanVAE
from ..vae.decoder import Upsample
from ..vae.encoder import Downsample
from ..vae.layers import CausalConv3d
from . import world
from .checkpoint import Checkpoint
from .optim import MuonAdam


@dataclass(frozen=True)
class VAEStage:
    """Stage of the curriculum: `steps` updates on `batch` clips of `frames` video frames of `crop` × `crop` pixels.

    The learning rates decrease from their peaks along a cosine that would end after `horizon` steps.
    """

    name: str
    frames: int
    crop: int
    batch: int
    steps: int
    horizon: int
    muon_lr: float
    adam_lr: float
    final_scale: float


# The last stage ends before its cosine does: the encoder is fixed then, and `POLISH` goes on with the decoder.
STAGES = (
    VAEStage("images", 1, crop=64, batch=16, steps=1200, horizon=1200, muon_lr=0.02, adam_lr=3e-3, final_scale=0.2),
    VAEStage("clips", 5, crop=64, batch=8, steps=1100, horizon=1100, muon_lr=0.005, adam_lr=1e-3, final_scale=0.4),
    VAEStage("films", 9, crop=128, batch=2, steps=400, horizon=900, muon_lr=0.0025, adam_lr=5e-4, final_scale=0.02),
)
POLISH = VAEStage("polish", 9, crop=128, batch=2, steps=220, horizon=220, muon_lr=0.002, adam_lr=4e-4, final_scale=0.02)
HERO_WEIGHT = 4.0
POLISH_NOISE = 0.2
KL_WEIGHT = 1e-4


def clip_batch(stage: VAEStage, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Batch of a step: video `[B, 3, T, S, S]` in [-1, 1] and hero mask `[B, 1, T, S, S]`. A quarter has a cut.

    The batch depends on `stage`, `seed` and `step` only.
    """
    videos, masks = list[Tensor](), list[Tensor]()
    for row in range(stage.batch):
        rng = np.random.default_rng((seed, stage.frames, step, row))
        span = 6 * FPS
        # The order of these calls is fixed: the random stream decides every batch.
        if rng.random() < 0.25 and stage.frames > 1:
            cut = int(rng.integers(1, stage.frames))
            start = int(rng.integers(span - stage.frames)) + stage.frames
            film = world.sample_film(rng, (start + cut, span))
        else:
            film = world.sample_film(rng, (span,))
            start = int(rng.integers(span - stage.frames))
        x, y = rng.integers(0, world.SIZE - stage.crop + 1, 2) // 16 * 16
        window = (slice(None), slice(y, y + stage.crop), slice(x, x + stage.crop))
        video = torch.from_numpy(world.render(film, start, start + stage.frames)[window].copy())
        mask = torch.from_numpy(world.render_mask(film, start, start + stage.frames)[window].copy())
        videos.append(video.permute(3, 0, 1, 2).float() / 127.5 - 1)
        masks.append(mask[None])
    return torch.stack(videos), torch.stack(masks)


def weighted_error(video: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """L1 error of videos `[B, 3, T, H, W]`; pixels of the hero (mask `[B, 1, T, H, W]`) have weight HERO_WEIGHT."""
    weight = 1 + (HERO_WEIGHT - 1) * mask
    return (weight * (video - target).abs()).mean() / weight.mean()


def reconstruction_loss(vae: WanVAE, video: Tensor, mask: Tensor, noise: torch.Generator) -> Tensor:
    """Hero-weighted L1 error plus KL divergence of the diagonal posterior; shapes as in `weighted_error`."""
    mean, log_variance = vae.moments(video)
    sample = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, generator=noise).to(mean)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return weighted_error(vae.reconstruct(sample), video, mask) + KL_WEIGHT * kl


def polish_loss(vae: WanVAE, video: Tensor, mask: Tensor, noise: torch.Generator) -> Tensor:
    """`weighted_error` of decoded latents with noise of up to POLISH_NOISE standard deviations; same shapes."""
    with torch.no_grad():
        latents = vae.normalise(vae.moments(video)[0])
        level = POLISH_NOISE * torch.rand(len(latents), 1, 1, 1, 1, generator=noise)
        latents = vae.denormalise(latents + level * torch.randn(latents.shape, generator=noise))
    return weighted_error(vae.reconstruct(latents), video, mask)


@torch.no_grad()
def inflate(vae: WanVAE) -> None:
    """Turn an image autoencoder into a video autoencoder that treats every frame as an image.

    Kernel weights of past frames become zero; temporal convolutions repeat frames (up) or average them (down).
    """
    for module in vae.modules():
        if isinstance(module, CausalConv3d) and module.kernel == (3, 3, 3):
            module.weight[:, :, :2] = 0
        elif isinstance(module, (Upsample, Downsample)) and module.time_conv is not None:
            weight = module.time_conv.weight.zero_()
            identity = torch.eye(weight.shape[1])
            if isinstance(module, Upsample):
                weight[:, :, 2, 0, 0] = identity.repeat(2, 1)
            else:
                weight[:, :, 1:, 0, 0] = 0.5 * identity[..., None]


@torch.no_grad()
def psnr(vae: WanVAE, seed: int, films: int = 4, frames: int = 33) -> float:
    """Mean PSNR in dB of encoding and decoding, over held-out films of two shots."""
    values: list[float] = []
    for index in range(films):
        film = world.sample_film(np.random.default_rng((seed, 777, index)), (frames // 2, frames))
        pixels = torch.from_numpy(world.render(film, 0, frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        error = (vae.decode(vae.encode(pixels)).clamp(-1, 1) - pixels) / 2
        values.append(-10 * torch.log10(error.square().mean()).item())
    return float(np.mean(values))


def train_vae(
    folder: Path, seed: int, log: Callable[[str], None], stages: tuple[VAEStage, ...] = STAGES, every: int = 100
) -> WanVAE:
    """Run the curriculum, resuming from the checkpoints in `folder`, which are written every `every` steps."""
    torch.manual_seed(seed)
    vae = WanVAE(MINI_VAE)
    for previous, stage in zip((None, *stages), stages, strict=False):
        if stage.frames > 1 and previous is not None and previous.frames == 1:
            inflate(vae)
        optimiser = MuonAdam(vae.parameters(), muon_lr=stage.muon_lr, adam_lr=stage.adam_lr)
        _run(stage, vae, vae, optimiser, folder, seed, log, reconstruction_loss, every)
    return vae


def polish_decoder(vae: WanVAE, folder: Path, seed: int, log: Callable[[str], None], stage: VAEStage = POLISH) -> None:
    """Train the decoder alone on slightly noisy latents, as a sampler makes them. Needs latent mean and std."""
    vae.decoder.requires_grad_(True)
    optimiser = MuonAdam(vae.decoder.parameters(), muon_lr=stage.muon_lr, adam_lr=stage.adam_lr)
    _run(stage, vae, vae.decoder, optimiser, folder, seed, log, polish_loss)
    vae.decoder.requires_grad_(False)


def _run(
    stage: VAEStage,
    vae: WanVAE,
    trained: nn.Module,
    optimiser: MuonAdam,
    folder: Path,
    seed: int,
    log: Callable[[str], None],
    loss_of: Callable[[WanVAE, Tensor, Tensor, torch.Generator], Tensor],
    every: int = 100,
) -> None:
    """Run one stage, resuming from its checkpoint. A step depends on `seed` and `step` only."""
    checkpoint = Checkpoint(folder / f"vae_{stage.name}.pt", every)
    for step in range(checkpoint.restore(trained, optimiser), stage.steps):
        noise = torch.Generator().manual_seed(seed * 1_000_003 + step)
        loss = loss_of(vae, *clip_batch(stage, seed, step), noise)
        loss.backward()
        optimiser.step(cosine(step, stage.horizon, stage.final_scale))
        checkpoint.save(step + 1, trained, optimiser, last=step + 1 == stage.steps)
        if (step + 1) % 50 == 0:
            log(f"vae {stage.name} {step + 1}/{stage.steps} loss {loss.item():.4f}")
    log(f"vae {stage.name} done: {psnr(vae, seed):.2f} dB on held-out films")


def cosine(step: int, steps: int, final: float, warmup: int = 50) -> float:
    """Learning-rate factor: linear warm-up, then a cosine from 1 to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + float(np.cos(np.pi * step / steps)))


def latent_statistics(vae: WanVAE, latents: Tensor) -> VAEConfig:
    """VAE config with per-channel mean and std of latents `[N, C, F, H, W]`; std ≥ 0.1 · its median."""
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    std = std.clamp(min=0.1 * std.median().item())
    return replace(vae.config, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


__all__ = ["STAGES", "VAEStage", "cosine", "inflate", "latent_statistics", "polish_decoder", "psnr", "train_vae"]
