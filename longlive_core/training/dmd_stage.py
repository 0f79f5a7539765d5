"""The stage that distils a causal model into a LoRA for few steps, and its settings. `dmd.py` has the losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
import torch

from ..memory import MemoryConfig
from ..model import CausalWan
from ..model.nvfp4_products import NVFP4Settings
from ..model.nvfp4_training import train_in_nvfp4
from ..parallel import ALONE, Ranks
from ..types import LatentShape
from .dmd import (
    CRITIC,
    GENERATOR,
    Batch,
    Roles,
    ScoreForm,
    ScoreSettings,
    critic_step,
    draw,
    draw_exit_step,
    generator_step,
)
from .dmd_losses import REAL_GUIDANCE
from .lora import LoraCard, LoraSettings, add_adapter, load_adapter
from .rollout import RolloutSettings
from .stage import Loss, OptimiserSettings, Origin, Trained
from .toml_settings import Setting, check_ranges

# Streams of random numbers: clips, which both roles share, the draws of each role, and rounding. `dmd.py` has others.
_CLIPS, _DRAWS, _ROUNDING = 0, {GENERATOR: 1, CRITIC: 2}, 5


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
    guidance: of the real score; 1 is off. nvfp4: the base of the generator and of the real score in NVFP4; LongLive 2.0
    distils with the rule mse for weights, too; not set is the trainer's precision. generator: AdamW over the
    generator's LoRA. critic: AdamW over the critic's LoRA.

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
    nvfp4: NVFP4Settings | None = None
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
    origins: the base and the data of the clips. ranks: processes that share each call of a model; all have the same
    seed and clips.

    Raises ValueError for memory settings that do not fit and as `train_in_nvfp4`, and CheckpointError for a LoRA of
    another rank, before any work.
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
        origins: Mapping[str, Origin] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        # Checks window, format and size.
        block = LatentShape(1, model.config.channels, settings.block_frames, *settings.size)
        settings.rollout.memory.bytes(model.config, block)
        self.settings, self.seed, self._clips = settings, seed, clips
        self.origins = {} if origins is None else origins
        self._noise = None if settings.nvfp4 is None else train_in_nvfp4(model, settings.nvfp4, ranks)
        self.weights = add_adapter(model, GENERATOR, settings.lora, seed)
        if start is not None:
            load_adapter(model, GENERATOR, start)
        critic = add_adapter(model, CRITIC, settings.lora, seed + 1)
        self.roles = Roles.of(model, ranks)
        self.trained = (
            Trained(GENERATOR, self.weights, settings.generator),
            Trained(CRITIC, critic, settings.critic),
        )

    def loss(self, name: str, step: int, part: int, /) -> Loss:
        """Returns the loss of the generator or of the critic on one batch. See `Stage.loss`."""
        settings = self.settings
        if self._noise is not None:
            self._noise.restart(int(self._random(_ROUNDING, step, part).integers(2**62)))
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

    @property
    def lora(self) -> LoraSettings:
        """Rank and alpha of the generator's LoRA."""
        return self.settings.lora

    def card(self, steps: int, base: str, data: str) -> LoraCard:
        """What the file of the generator's LoRA says after so many steps of the trainer. data: name of the prompts."""
        updates = -(-steps // self.settings.generator.every)
        return LoraCard(base, data, updates, self.settings.steps, self.settings.rope_offset)

    def _random(self, stream: int, step: int, part: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, stream, step, part))
