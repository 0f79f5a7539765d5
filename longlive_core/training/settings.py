"""Settings of a whole run for each kind of training: what `longlive train` reads from a TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from ..mini import LATENT_SIZE
from ..types import BLOCK_FRAMES
from .ar_settings import ARSettings
from .dmd_stage import DMDSettings
from .lora import LoraSettings
from .stage import OptimiserSettings
from .toml_settings import Setting, check_ranges
from .trainer_settings import Precision, TrainerSettings
from .vae_stage import VAEPhase


@dataclass(frozen=True)
class ARRun:
    """Autoregressive training by teacher forcing, on encoded films of the embedded model's world.

    base: model to start from: "mini", a folder that `train mini` or `train ar` made, or a checkpoint of its width.
    data: folder of encoded films, as `train mini --only films --vae shipped` makes it for the embedded model.
    data_seed: seed of these films. films: number of films to train on. validation_films: number of further films, for
    the validation loss. blocks: clean and noisy blocks in each part of a batch; longer films are fewer. trainer: the
    loop. optimiser: AdamW, over all weights of the transformer. ar: noise levels, memory and errors of teacher forcing.

    Raises ValueError for a value out of range, and for a validation without films.
    """

    base: str = "mini"
    data: Annotated[Path, Setting(example="output/mini/films")] = Path("output/mini/films")
    data_seed: Annotated[int, Setting(at_least=0)] = 0
    films: Annotated[int, Setting(at_least=1)] = 1900
    validation_films: Annotated[int, Setting(at_least=0)] = 100
    blocks: Annotated[int, Setting(at_least=1)] = 15
    trainer: TrainerSettings = field(default_factory=partial(TrainerSettings, steps=2000, validate_every=200))
    optimiser: OptimiserSettings = field(
        default_factory=partial(OptimiserSettings, lr=1e-4, betas=(0.9, 0.99), clip=1.0, ema_decay=0.99, ema_start=100)
    )
    ar: ARSettings = field(default_factory=partial(ARSettings, window=32))

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.trainer.validate_every and not self.validation_films:
            raise ValueError(
                "'validation_films' = 0 leaves no film for the validation loss: set some, or 'trainer.validate_every' "
                "to 0"
            )


@dataclass(frozen=True)
class DMDRun:
    """Distillation into a LoRA of few steps by distribution matching.

    base: model to distil: "mini", a folder that `train mini` or `train ar` made, or a checkpoint of its width. data:
    "world" for random scripts of the embedded model's world, or a shot script, or a folder of them (.txt). lora: LoRA
    file to train further, of the same rank and alpha. negative: prompt of the real score's guidance. clips: number of
    clips in each part of a batch. trainer: the loop. dmd: models, sampler, memory and scores.

    Raises ValueError for a value out of range.
    """

    base: str = "mini"
    data: str = "world"
    lora: Annotated[Path | None, Setting(example="output/dmd/lora.safetensors")] = None
    negative: str = ""
    clips: Annotated[int, Setting(at_least=1)] = 1
    trainer: TrainerSettings = field(default_factory=partial(TrainerSettings, steps=2000))
    # The embedded model learnt from clean earlier blocks, with RoPE times that jump at cuts, and without guidance.
    dmd: DMDSettings = field(
        default_factory=partial(
            DMDSettings,
            size=LATENT_SIZE,
            rank=32,
            alpha=32.0,
            score_form="teacher_forced",
            score_rope_offset=8.0,
            guidance=1.0,
            generator=OptimiserSettings(lr=1e-4, every=5),
            critic=OptimiserSettings(lr=1e-4),
        )
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class LoraRun:
    """Training of a LoRA on videos of one's own, by teacher forcing.

    base: model that the LoRA belongs to: "mini", a folder that `train mini` or `train ar` made, or a checkpoint of its
    width, which may be quantised. data: a folder of videos with captions of the same names (.txt), or a JSONL file of
    {"video_path", "caption"}, or a video with its caption; a caption may be a shot script, with the times of the video.
    lora: LoRA file to train further, of the same rank and alpha. rank: of the LoRA. alpha: the LoRA is scaled by alpha
    / rank; not set is the rank. size: height and width in pixels; a video of another shape gets one of about the same
    area, in multiples of 32; not set is the model's. blocks: the longest training clip in blocks of 32 frames; longer
    videos become several clips. clips: number of clips in each part of a batch. prior: more videos, as for `data`, that
    every second step learns from: with the LoRA the model is to make of their prompts what the base makes; films that
    the base has made serve best. prior_weight: of their loss. rope_offset: latent frames that each cut adds to the RoPE
    time, as at inference. cache: folder of the encoded clips; not set is one in the run's folder. trainer: the loop.
    optimiser: AdamW, over the LoRA. ar: noise levels, memory and errors of teacher forcing.

    Raises ValueError for a value out of range.
    """

    base: str = "mini"
    data: Annotated[Path, Setting(example="clips")] = Path("clips")
    lora: Annotated[Path | None, Setting(example="output/lora/lora.safetensors")] = None
    rank: Annotated[int, Setting(at_least=1)] = 32
    alpha: Annotated[float | None, Setting(above=0, example=32.0)] = None
    size: Annotated[tuple[int, int] | None, Setting(at_least=32, example=(512, 512))] = None
    blocks: Annotated[int, Setting(at_least=1)] = 4
    clips: Annotated[int, Setting(at_least=1)] = 1
    prior: Annotated[Path | None, Setting(example="films")] = None
    prior_weight: Annotated[float, Setting(above=0)] = 1.0
    rope_offset: float = 8.0
    cache: Annotated[Path | None, Setting(example="output/clips")] = None
    trainer: TrainerSettings = field(default_factory=partial(TrainerSettings, steps=1000))
    optimiser: OptimiserSettings = field(
        default_factory=partial(OptimiserSettings, lr=1e-4, betas=(0.9, 0.99), clip=1.0, warmup=20, final_scale=0.1)
    )
    # Samplers of few steps decide colours and shapes at the noisiest level, which the bell leaves out.
    ar: ARSettings = field(default_factory=partial(ARSettings, window=32, weighting="uniform"))

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.ar.block_frames != BLOCK_FRAMES:
            raise ValueError(f"'ar.block_frames' must be {BLOCK_FRAMES}, as the clips are laid out")

    @property
    def settings(self) -> LoraSettings:
        """Rank and alpha of the LoRA."""
        return LoraSettings(self.rank, float(self.rank) if self.alpha is None else self.alpha)


def _muon(muon_lr: float, lr: float, final_scale: float, horizon: int | None = None) -> OptimiserSettings:
    return OptimiserSettings(
        lr=lr, muon_lr=muon_lr, betas=(0.9, 0.99), clip=None, warmup=50, final_scale=final_scale, horizon=horizon
    )


@dataclass(frozen=True)
class VAERun:
    """Training of a VAE like the embedded model's from random weights, on films of its world.

    seed: with the step it decides all random numbers. accumulation: parts of a batch whose gradients are averaged
    before an update. precision: of the forward pass; weights and optimiser are always float32. save_every: steps
    between checkpoints; each phase keeps the newest two. statistics: films that the statistics of the latents are
    measured on. images: the first phase, an image autoencoder. clips: the second phase, short clips of parts of a
    frame; if the phase before has one frame, weights of past frames start at zero. films: the third phase, short clips
    of whole frames. polish: the decoder alone, on noisy latents, because a sampler's latents have errors.

    The PSNR of held-out films is measured after each phase. Raises ValueError for a value out of range.
    """

    seed: Annotated[int, Setting(at_least=0)] = 0
    accumulation: Annotated[int, Setting(at_least=1)] = 1
    precision: Precision = "float32"
    save_every: Annotated[int, Setting(at_least=1)] = 100
    statistics: Annotated[int, Setting(at_least=1)] = 48
    images: VAEPhase = field(default_factory=lambda: VAEPhase(1200, 1, 64, 16, _muon(0.02, 3e-3, 0.2)))
    clips: VAEPhase = field(default_factory=lambda: VAEPhase(1100, 5, 64, 8, _muon(0.005, 1e-3, 0.4)))
    # It ends in the middle of its cosine. Any fixed encoder will do, and `polish` trains the decoder further.
    films: VAEPhase = field(default_factory=lambda: VAEPhase(400, 9, 128, 2, _muon(0.0025, 5e-4, 0.02, 900)))
    polish: VAEPhase = field(default_factory=lambda: VAEPhase(220, 9, 128, 2, _muon(0.002, 4e-4, 0.02)))

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def phases(self) -> tuple[tuple[str, VAEPhase], ...]:
        """The phases that train the whole VAE, with their names."""
        return ("images", self.images), ("clips", self.clips), ("films", self.films)

    def trainer(self, phase: VAEPhase) -> TrainerSettings:
        """Returns the settings of the loop for a phase."""
        return TrainerSettings(
            phase.steps, self.seed, self.accumulation, self.precision, self.save_every, validate_every=phase.steps
        )


Run = ARRun | DMDRun | LoraRun | VAERun
RUNS: Final[dict[str, type[Run]]] = {"ar": ARRun, "dmd": DMDRun, "lora": LoraRun, "vae": VAERun}
