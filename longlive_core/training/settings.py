"""Settings of a whole run for each kind of training: what `longlive train` reads from a TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Final

from ..mini import LATENT_SIZE
from .ar import ARSettings
from .dmd_stage import DMDSettings
from .stage import OptimiserSettings
from .toml_settings import Setting, check_ranges
from .trainer import TrainerSettings


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


Run = ARRun | DMDRun
RUNS: Final[dict[str, type[Run]]] = {"ar": ARRun, "dmd": DMDRun}
