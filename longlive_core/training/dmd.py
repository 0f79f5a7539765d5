"""Distribution matching distillation of a causal model into a LoRA for few steps: the generator and the critic.

Three roles share one base: the generator is the base with a LoRA, the critic is the base with another LoRA, and the
real score is the base alone. The critic is updated in each step, the generator in every fifth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..memory import MemoryConfig
from ..model import CausalWan
from ..types import LatentShape
from .dmd_losses import REAL_GUIDANCE, critic_loss, dmd_gradient, generator_loss, guided
from .lora import PREFIX, AdaptedModel, LoraCard, LoraSettings, add_adapter, load_adapter, save_lora
from .rollout import ClipPrompts, RolloutSettings, rollout, with_image
from .schedule import TimestepTable, add_noise, clean_from_flow, dmd_timesteps
from .stage import Loss, OptimiserSettings, Trained
from .teacher_forcing import plain_flow, teacher_forced_flow
from .toml_settings import Setting, check_ranges

GENERATOR, CRITIC = "generator", "critic"
ScoreForm = Literal["plain", "teacher_forced"]
# Streams of random numbers: clips, which both roles share, and the draws and exit steps of each role.
_CLIPS, _DRAWS, _EXIT = 0, {GENERATOR: 1, CRITIC: 2}, {GENERATOR: 3, CRITIC: 4}


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
    def of(cls, model: CausalWan) -> Roles:
        """The roles on one base that has both adapters."""
        return cls(AdaptedModel(model, GENERATOR), AdaptedModel(model, CRITIC), AdaptedModel(model, None))


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
        if self.form == "plain":
            return plain_flow(base, noisy, t, *given, checkpointing=self.checkpointing).float()
        clean, noisy, t = self.x.to(base.dtype), noisy.unsqueeze(1), t.unsqueeze(1)
        return teacher_forced_flow(base, clean, noisy, t, *given, checkpointing=self.checkpointing).squeeze(1).float()

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


@dataclass(frozen=True)
class DMDSettings:
    """Settings of a distillation; the defaults are those of LongLive 2.0, except for memory that is detached.

    steps: of the sampler to distil to, 4 or 2. shift: of the timestep schedule. size: rows and columns of the latents.
    block_frames: latent frames in a block. rank, alpha: of the LoRAs, which are scaled by alpha / rank. window: latent
    frames that the memory holds; clips may be longer. sink: latent frames at the start of the film that the memory
    keeps. shot_sink: also keep the first block of the shot. kv_format: storage format of the memory, such as bf16 or
    nvfp4. rope_offset: latent frames that each cut adds to the RoPE time, as at inference; 0 is off. straight_through:
    let gradients pass through the memory, as in LongLive 2.0; otherwise it is detached. checkpointing: compute
    activations again in the backward pass, which saves memory. score_form: how scores see earlier blocks: plain, at the
    same noise level, or teacher_forced, without noise. score_rope_offset: RoPE offset of cuts in the scores; 0 is off.
    guidance: of the real score; 1 is off. generator: AdamW over the generator's LoRA. critic: AdamW over the critic's
    LoRA.

    Raises ValueError for a value out of range.
    """

    steps: Annotated[int, Setting(at_least=1, at_most=50)] = 4
    shift: Annotated[float, Setting(above=0)] = 5.0
    size: Annotated[tuple[int, int], Setting(at_least=2)] = (44, 80)
    block_frames: Annotated[int, Setting(at_least=1)] = 8
    rank: Annotated[int, Setting(at_least=1)] = 128
    alpha: Annotated[float, Setting(above=0)] = 128.0
    window: Annotated[int, Setting(at_least=1)] = 32
    sink: Annotated[int, Setting(at_least=0)] = 8
    shot_sink: bool = True
    kv_format: str = "bf16"
    rope_offset: float = 8.0
    straight_through: bool = False
    checkpointing: bool = False
    score_form: ScoreForm = "plain"
    score_rope_offset: float = 0.0
    guidance: Annotated[float, Setting(at_least=0)] = REAL_GUIDANCE
    generator: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(lr=1e-5, every=5))
    critic: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(lr=2e-6))

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def lora(self) -> LoraSettings:
        """Rank and alpha of both LoRAs."""
        return LoraSettings(self.rank, self.alpha)

    @property
    def rollout(self) -> RolloutSettings:
        """How clips are simulated."""
        memory = MemoryConfig(
            window=self.window,
            sink=self.sink,
            shot_sink=self.shot_sink,
            kv_format=self.kv_format,
            rope_offset=self.rope_offset,
        )
        return RolloutSettings(self.steps, self.shift, memory, self.straight_through, self.checkpointing)

    @property
    def scores(self) -> ScoreSettings:
        """How critic and teacher look at a noisy clip."""
        return ScoreSettings(self.score_form, self.guidance, self.score_rope_offset)


class ClipSource(Protocol):
    """Where batches of clips come from."""

    def batch(self, rng: np.random.Generator, /) -> Batch:
        """Returns a batch that depends on `rng` only."""
        ...


class DMDStage:
    """Stage of the trainer for distillation. A loss depends on (seed, step, part) and on the weights only.

    model: the base, which is frozen and gets both adapters. start: a LoRA file to train further, for the generator.

    Raises ValueError for memory settings that do not fit, and CheckpointError for a LoRA of another rank, before
    any work.
    """

    name = "dmd"

    def __init__(
        self,
        model: CausalWan,
        clips: ClipSource,
        settings: DMDSettings,
        seed: int,
        *,
        start: Path | str | None = None,
    ) -> None:
        # Checks window, format and size.
        block = LatentShape(1, model.config.channels, settings.block_frames, *settings.size)
        settings.rollout.memory.bytes(model.config, block)
        self.settings, self.seed, self._clips = settings, seed, clips
        self.weights = add_adapter(model, GENERATOR, settings.lora, seed)
        if start is not None:
            load_adapter(model, GENERATOR, start)
        critic = add_adapter(model, CRITIC, settings.lora, seed + 1)
        self.roles = Roles.of(model)
        self.trained = (
            Trained(GENERATOR, self.weights, settings.generator),
            Trained(CRITIC, critic, settings.critic),
        )

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """Returns the loss of the generator or of the critic on one batch. See `Stage.loss`."""
        settings = self.settings
        batch = self._clips.batch(self._random(_CLIPS, step, part))
        exit_step = draw_exit_step(self.seed, step, settings.steps, name)
        shape = LatentShape(
            batch.prompts.rows.shape[0],
            self.roles.generator.config.channels,
            len(batch.prompts.cuts) * settings.block_frames,
            *settings.size,
        )
        generator = torch.Generator().manual_seed(int(self._random(_DRAWS[name], step, part).integers(2**62)))
        draws = draw(shape, exit_step, generator, each_block=batch.image is not None)
        figures = {"exit step": float(exit_step)}
        if name == CRITIC:
            return Loss(
                critic_step(self.roles, settings.rollout, settings.scores, batch, draws).loss, figures, batch.name
            )
        result = generator_step(self.roles, settings.rollout, settings.scores, batch, draws)
        figures["gradient"] = float(result.gradient.abs().mean())
        return Loss(result.loss, figures, batch.name)

    def validation_loss(self, step: int, /) -> dict[str, float]:
        """Returns {}: the loss of distillation does not measure the generator."""
        del step
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Returns {}: there is no state but the weights."""
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Does nothing; see `state_dict`."""
        del state

    def save_lora(
        self,
        path: Path,
        steps: int,
        *,
        base: str,
        data: str,
        weights: Mapping[str, Tensor] | None = None,
        prefix: str = PREFIX,
    ) -> None:
        """Writes the generator's LoRA with its card.

        steps: finished steps of the trainer. base, data: names of the distilled model and of the prompts. weights: an
        average of the generator's weights to write in their place. prefix: of the key names.
        """
        settings = self.settings
        updates = -(-steps // settings.generator.every)
        card = LoraCard(base, data, updates, settings.steps, settings.rope_offset)
        save_lora(path, self.weights if weights is None else weights, settings.lora, card, prefix)

    def _random(self, stream: int, step: int, part: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, stream, step, part))
