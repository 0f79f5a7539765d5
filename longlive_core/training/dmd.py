"""One step of distribution matching distillation: the losses of the generator and of the critic.

Three roles share one base: the generator is the base with a LoRA, the critic is the base with another LoRA, and the
real score is the base alone. The critic is updated in each step, the generator in every fifth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..model import CausalWan
from ..parallel import ALONE, Ranks
from ..types import LatentShape
from .clip_prompts import ClipPrompts
from .dmd_losses import REAL_GUIDANCE, critic_loss, dmd_gradient, generator_loss, guided
from .lora import AdaptedModel
from .rollout import RolloutSettings, rollout, with_image
from .schedule import TimestepTable, add_noise, clean_from_flow, dmd_timesteps
from .teacher_forcing import plain_flow, teacher_forced_flow

GENERATOR, CRITIC = "generator", "critic"
ScoreForm = Literal["plain", "teacher_forced"]
# Streams of random numbers: the exit steps of each role. `dmd_stage.py` has the others.
_EXIT = {GENERATOR: 3, CRITIC: 4}


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """How critic and teacher look at a noisy clip.

    form: `plain` shows each block the earlier blocks at the clip's own noise level, as LongLive 2.0 does;
    `teacher_forced` shows it the generator's clean blocks. guidance: of the real score, in the usual convention.
    rope_offset: latent frames that each cut adds to the RoPE time; 0 as LongLive 2.0 trains.
    """

    form: ScoreForm = "plain"
    guidance: float = REAL_GUIDANCE
    rope_offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Roles:
    """The three models of a distillation."""

    generator: AdaptedModel
    critic: AdaptedModel
    real: AdaptedModel

    @classmethod
    def of(cls, model: CausalWan, ranks: Ranks = ALONE) -> Roles:
        """The roles on one base that has both adapters. A critic never rounds to NVFP4, as in LongLive 2.0.

        ranks: processes that share each call. All compute the whole loss, and the mean of their gradients is its
        gradient.
        """
        critic = AdaptedModel(model, CRITIC, nvfp4=False, ranks=ranks)
        return cls(AdaptedModel(model, GENERATOR, ranks=ranks), critic, AdaptedModel(model, None, ranks=ranks))


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of clips to simulate.

    negative: embeddings of the negative prompt, `[B or 1, L, text_dim]`. image: first latent frame of each clip,
    `[B, C, 1, H, W]`, for image to video, or None. name: for the log.
    """

    prompts: ClipPrompts
    negative: Tensor
    image: Tensor | None = None
    name: str = ""

    @property
    def given(self) -> int:
        """Number of leading latent frames that are given."""
        return 0 if self.image is None else self.image.shape[2]


@dataclass(frozen=True, slots=True)
class Draws:
    """The random draws of one step.

    exit_step: of the rollout. noise, clean_noise, score_noise: of the clip, of its clean passes and of the scores,
    `[B, C, F, H, W]`. u: integers 0 … 999 that give the timesteps of the scores, `[B, 1]` or `[B, F]`; with F columns
    the first one of each block counts.
    """

    exit_step: int
    noise: Tensor
    clean_noise: Tensor
    score_noise: Tensor
    u: Tensor


@dataclass(frozen=True, slots=True)
class GeneratorStep:
    """A generator step. loss: float64 with a graph. The other tensors have none; x0 … `[B, C, F, H, W]`, t `[B, F]`."""

    loss: Tensor
    rollout: Tensor
    t: Tensor
    noisy: Tensor
    fake: Tensor
    real_positive: Tensor
    real_negative: Tensor
    gradient: Tensor


@dataclass(frozen=True, slots=True)
class CriticStep:
    """A critic step. loss: float32 with a graph. The other tensors are those of the critic's call, as above."""

    loss: Tensor
    rollout: Tensor
    t: Tensor
    noisy: Tensor
    flow: Tensor
    x0: Tensor


def draw(shape: LatentShape, exit_step: int, generator: torch.Generator, *, each_block: bool = False) -> Draws:
    """Draws the noise and the timesteps of a step, on the CPU.

    shape: of the clip. each_block: draw a timestep for each block, as for image to video, and not one for each clip.
    """
    noise, clean_noise, score_noise = (torch.randn(shape.as_tuple(), generator=generator) for _ in range(3))
    u = torch.randint(1000, (shape.batch, shape.frames if each_block else 1), generator=generator)
    return Draws(exit_step, noise, clean_noise, score_noise, u)


def draw_exit_step(seed: int, step: int, steps: int, role: str = GENERATOR) -> int:
    """The exit step of a training step, uniform in 0 … steps − 1: the same for all parts, ranks and restarts."""
    return int(np.random.default_rng((seed, _EXIT[role], step)).integers(steps))


def generator_step(
    roles: Roles, settings: RolloutSettings, scores: ScoreSettings, batch: Batch, draws: Draws
) -> GeneratorStep:
    """Simulates clips with a gradient, and compares them by critic and teacher.

    Leaves the base switched to the generator's adapter, for a backward pass that computes activations again.
    """
    x = _simulate(roles, settings, batch, draws, grad=True)
    with torch.no_grad():
        clip = _NoisyClip.of(x.detach(), settings, scores, batch, draws)
        fake = clip.x0(clip.flow(roles.critic))
        positive = clip.x0(clip.flow(roles.real))
        negative = clip.x0(clip.flow(roles.real, batch.negative))
        real = guided(positive, negative, scores.guidance)
        gradient = dmd_gradient(clip.x, fake, real, batch.prompts.block_frames(x))
    roles.generator.activate()
    loss = generator_loss(x, gradient, batch.given)
    return GeneratorStep(loss, clip.x, clip.t, clip.noisy, fake, positive, negative, gradient)


def critic_step(
    roles: Roles, settings: RolloutSettings, scores: ScoreSettings, batch: Batch, draws: Draws
) -> CriticStep:
    """Simulates clips without a gradient, and lets the critic predict their flow.

    Leaves the base switched to the critic's adapter, for a backward pass that computes activations again.
    """
    x = _simulate(roles, settings, batch, draws, grad=False)
    clip = _NoisyClip.of(x, settings, scores, batch, draws)
    flow = clip.flow(roles.critic)
    loss = critic_loss(flow, clip.noise, x, batch.given)
    return CriticStep(loss, x, clip.t, clip.noisy, flow.detach(), clip.x0(flow.detach()))


def _simulate(roles: Roles, settings: RolloutSettings, batch: Batch, draws: Draws, *, grad: bool) -> Tensor:
    """The clips of a rollout, `[B, C, F, H, W]`."""
    calls = rollout(
        roles.generator,
        settings,
        batch.prompts,
        draws.exit_step,
        draws.noise,
        draws.clean_noise,
        image=batch.image,
        grad=grad,
    )
    return torch.cat([call.x0 for call in calls], dim=2)


@dataclass(frozen=True, slots=True)
class _NoisyClip:
    """The generator's clips x with noise, as critic and teacher see them.

    t: `[B, F]`. sigma: `[B, 1, F, 1, 1]`. positions: RoPE times `[F]`.
    """

    x: Tensor
    noise: Tensor
    noisy: Tensor
    t: Tensor
    sigma: Tensor
    positions: Tensor
    prompts: ClipPrompts
    form: ScoreForm
    checkpointing: bool

    @classmethod
    def of(cls, x: Tensor, settings: RolloutSettings, scores: ScoreSettings, batch: Batch, draws: Draws) -> _NoisyClip:
        """Adds noise to clips without a gradient. The frames of an image stay as they are, with timestep 0."""
        block_frames = batch.prompts.block_frames(x)
        t = score_timesteps(draws.u, x.shape[2], block_frames, settings.shift).to(x.device)
        noise = draws.score_noise.to(x)
        t[:, : batch.given] = 0
        noise = torch.cat((torch.zeros_like(noise[:, :, : batch.given]), noise[:, :, batch.given :]), dim=2)
        sigma = TimestepTable.shifted(settings.shift).at(t).sigmas[:, None, :, None, None]
        noisy = add_noise(x, noise, sigma)
        if batch.image is not None:
            noisy = with_image(noisy, batch.image)
        cuts = torch.tensor(batch.prompts.cuts).cumsum(0).repeat_interleave(block_frames)
        positions = torch.arange(x.shape[2], dtype=torch.float64) + scores.rope_offset * cuts
        again = settings.checkpointing
        return cls(x, noise, noisy, t, sigma, positions.to(x.device), batch.prompts, scores.form, again)

    def flow(self, model: AdaptedModel, negative: Tensor | None = None) -> Tensor:
        """The flow that a role predicts, float32 `[B, C, F, H, W]`.

        negative: embeddings for all blocks in place of the prompts, `[B or 1, L, text_dim]`.
        """
        rows = self.prompts.rows
        text = self.prompts.text if negative is None else negative
        if negative is not None:
            rows = torch.arange(len(negative)).unsqueeze(1).expand(rows.shape)
        base, block_frames = model.activate(), self.prompts.block_frames(self.x)
        noisy, t = self.noisy.to(base.dtype), self.t
        given = (text.to(base.device, base.dtype), rows.to(base.device), self.positions, block_frames)
        again, ranks = self.checkpointing, model.ranks
        if self.form == "plain":
            return plain_flow(base, noisy, t, *given, checkpointing=again, token_ranks=ranks).float()
        clean, noisy, t = self.x.to(base.dtype), noisy.unsqueeze(1), t.unsqueeze(1)
        flow = teacher_forced_flow(base, clean, noisy, t, *given, checkpointing=again, token_ranks=ranks)
        return flow.squeeze(1).float()

    def x0(self, flow: Tensor) -> Tensor:
        """The clean latents that a flow predicts."""
        return clean_from_flow(self.noisy, flow, self.sigma)


def score_timesteps(u: Tensor, frames: int, block_frames: int, shift: float = 5.0) -> Tensor:
    """Timesteps of the scores, `[B, F]`, from integers 0 … 999: `[B, 1]` for a whole clip, or `[B, F]`.

    With F columns, each block takes the one of its first frame.
    """
    if u.shape[1] == 1:
        return dmd_timesteps(u, shift).repeat(1, frames)
    return dmd_timesteps(u, shift)[:, ::block_frames].repeat_interleave(block_frames, dim=1)
