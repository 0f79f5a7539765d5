"""The stage that trains LongLive Mini's VAE, one phase of its curriculum at a time, and the settings of a phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ..take.settings import fingerprint, tensor_bytes
from ..types import FPS, SPACE_FACTOR, TIME_FACTOR
from ..vae import WanVAE
from . import world
from .stage import Loss, OptimiserSettings, Origin, Trained
from .toml_settings import Setting, check_ranges
from .vae_losses import decoder_loss, reconstruction_loss
from .vae_measures import held_out_psnr

FILM_FRAMES = 6 * FPS  # of the shots that clips are cut from
CUTS = 0.25  # share of clips of several frames with a cut


@dataclass(frozen=True)
class VAEPhase:
    """One phase of the curriculum.

    steps: updates. frames: video frames of a clip, 1 + 4 k. crop: height and width of a clip in pixels, a multiple of
    16. batch: clips in each part of a batch. optimiser: Muon for the kernels, AdamW for all other weights.

    Raises ValueError for a value out of range.
    """

    steps: Annotated[int, Setting(at_least=1, example=1000)]
    frames: Annotated[int, Setting(at_least=1, at_most=FILM_FRAMES - TIME_FACTOR + 1, example=5)]
    crop: Annotated[int, Setting(at_least=SPACE_FACTOR, at_most=world.SIZE, example=64)]
    batch: Annotated[int, Setting(at_least=1, example=8)]
    optimiser: OptimiserSettings

    def __post_init__(self) -> None:
        check_ranges(self)
        if (self.frames - 1) % TIME_FACTOR:
            raise ValueError(f"'frames' = {self.frames} must be 1 + {TIME_FACTOR} k, such as 1, 5 or 9")
        if self.crop % SPACE_FACTOR:
            raise ValueError(f"'crop' = {self.crop} must be a multiple of {SPACE_FACTOR}")
        if self.optimiser.ema_decay:
            raise ValueError("'ema_decay' is not for the VAE, whose next phase starts from the weights: leave it out")


class VAEStage:
    """Trains the VAE in one phase, in place, or its decoder alone. A loss depends on (seed, step, part) only.

    vae: on the device to train on; this decides which of its parameters require gradients. A run that was interrupted
    needs the same VAE to start from. phase: name of the phase, which is in the name of the stage. decoder: train the
    decoder alone, on noisy latents; the VAE's configuration must hold the statistics of its latents.
    """

    def __init__(self, vae: WanVAE, phase: str, settings: VAEPhase, seed: int, *, decoder: bool = False) -> None:
        self.name = f"vae {phase}"
        self.vae, self.settings, self.seed = vae, settings, seed
        self._loss = decoder_loss if decoder else reconstruction_loss
        module = vae.decoder if decoder else vae
        vae.requires_grad_(False)
        module.requires_grad_(True)
        # Not the statistics of the latents: they depend on the number of threads.
        self.origins = {"start": Origin("VAE", fingerprint(tensor_bytes(p) for p in vae.state_dict().values()))}
        self.trained = (Trained("decoder" if decoder else "vae", module, settings.optimiser),)

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """See `Stage.loss`."""
        del name  # there is one module
        device = next(self.vae.parameters()).device
        video, mask = (x.to(device) for x in clip_batch(self.settings, self.seed, step, part))
        noise = torch.Generator().manual_seed(noise_seed(self.seed, step, part))
        return Loss(self._loss(self.vae, video, mask, noise), batch=f"batch {step}.{part} of the synthetic world")

    def validation_loss(self, step: int, /) -> dict[str, float]:
        """Returns the PSNR of held-out films in dB as "psnr"."""
        del step  # the held-out films are always the same
        return {"psnr": held_out_psnr(self.vae, self.seed)}

    def state_dict(self) -> dict[str, Any]:
        """Returns {}: there is no state but the weights."""
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Does nothing; see `state_dict`."""
        del state


def noise_seed(seed: int, step: int, part: int) -> int:
    """Seed of a part's noise, in 32 bits, because torch's generator on the CPU drops all others."""
    return (1_000_003 * seed + step + 2_654_435_761 * part) % 2**32


def clip_batch(phase: VAEPhase, seed: int, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
    """Returns clips `[B, 3, T, S, S]` in [−1, 1] and masks of the hero `[B, 1, T, S, S]` in [0, 1].

    They depend on `seed`, `step` and `part` only, and the parts of a step hold the clips of one larger batch.
    """
    rows = range(part * phase.batch, (part + 1) * phase.batch)
    clips = [_clip(phase, np.random.default_rng((seed, phase.frames, step, row))) for row in rows]
    return torch.stack([video for video, _ in clips]), torch.stack([mask for _, mask in clips])


def _clip(phase: VAEPhase, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One clip `[3, T, S, S]` and its mask `[1, T, S, S]`."""
    # The order of these calls decides every clip, because they share one random stream.
    if rng.random() < CUTS and phase.frames > 1:
        cut = int(rng.integers(1, phase.frames))
        start = int(rng.integers(FILM_FRAMES - phase.frames)) + phase.frames
        film = world.sample_film(rng, (start + cut, FILM_FRAMES))
    else:
        film = world.sample_film(rng, (FILM_FRAMES,))
        start = int(rng.integers(FILM_FRAMES - phase.frames))
    x, y = rng.integers(0, world.SIZE - phase.crop + 1, 2) // SPACE_FACTOR * SPACE_FACTOR
    window = (slice(None), slice(y, y + phase.crop), slice(x, x + phase.crop))
    video = torch.from_numpy(world.render(film, start, start + phase.frames)[window].copy())
    mask = torch.from_numpy(world.render_mask(film, start, start + phase.frames)[window].copy())
    return video.permute(3, 0, 1, 2).float() / 127.5 - 1, mask[None]
