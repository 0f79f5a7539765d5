"""Settings of a whole run for each kind of training: what `longlive train` reads from a TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from .ar import ARSettings
from .stage import OptimiserSettings
from .toml_settings import Setting, check_ranges
from .trainer import TrainerSettings


@dataclass(frozen=True)
class ARRun:
    """Autoregressive training by teacher forcing.

    model: checkpoint to start from; "mini" is the embedded model. data: folder of videos with captions. output: folder
    of log, plot and checkpoints. validation: folder of held-out videos with captions; not set is no validation loss.
    frames: latent frames of a clip. size: "HxW" of the video in pixels. batch: clips in each part of a batch. trainer:
    the loop. optimiser: AdamW, over all weights of the model. ar: noise levels, memory and errors of teacher forcing.
    """

    model: Annotated[str, Setting(example="wan2.2_ti2v_5B.safetensors")]
    data: Annotated[Path, Setting(example="clips")]
    output: Path = Path("output/ar")
    validation: Annotated[Path | None, Setting(example="held_out_clips")] = None
    frames: Annotated[int, Setting(at_least=1)] = 96
    size: str = "704x1280"
    batch: Annotated[int, Setting(at_least=1)] = 1
    trainer: TrainerSettings = field(default_factory=partial(TrainerSettings, steps=600, precision="bf16"))
    optimiser: OptimiserSettings = field(
        default_factory=partial(OptimiserSettings, lr=1e-5, ema_decay=0.99, ema_start=100)
    )
    ar: ARSettings = field(default_factory=partial(ARSettings, checkpointing=True))

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DMDRun:
    """Distillation into a LoRA of few steps by distribution matching.

    model: checkpoint of the generator's base; "mini" is the embedded model. data: folder of captions, or a text file
    with a prompt in each line. output: folder of log, plot, checkpoints and LoRA. teacher: checkpoint of the real
    score; not set is that of the model. lora: LoRA to go on from, of the same rank. negative: prompt of the real
    score's guidance. sampling_steps: of the distilled model. frames: latent frames of a clip. size: "HxW" of the
    video in pixels. batch: clips in each part of a batch. rank, alpha: of the LoRAs of generator and critic.
    trainer: the loop. generator: AdamW over the generator's LoRA. critic: AdamW over the critic's LoRA.
    """

    model: Annotated[str, Setting(example="ar.safetensors")]
    data: Annotated[Path, Setting(example="captions")]
    output: Path = Path("output/dmd")
    teacher: Annotated[str | None, Setting(example="wan2.2_ti2v_5B.safetensors")] = None
    lora: Annotated[Path | None, Setting(example="lora.safetensors")] = None
    negative: str = ""
    sampling_steps: Literal[2, 3, 4] = 4
    frames: Annotated[int, Setting(at_least=1)] = 32
    size: str = "704x1280"
    batch: Annotated[int, Setting(at_least=1)] = 1
    rank: Annotated[int, Setting(at_least=1)] = 128
    alpha: Annotated[float, Setting(above=0)] = 128.0
    trainer: TrainerSettings = field(default_factory=partial(TrainerSettings, steps=5000, precision="bf16"))
    generator: OptimiserSettings = field(default_factory=partial(OptimiserSettings, lr=1e-5, every=5))
    critic: OptimiserSettings = field(default_factory=partial(OptimiserSettings, lr=2e-6))

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class VAERun:
    """Training of a VAE on clips.

    data: folder of videos. output: folder of log, plot and checkpoints. vae: checkpoint to start from; not set is
    random weights. frames: video frames of a clip, one more than a multiple of 4. crop: height and width of a clip in
    pixels, a multiple of 16. batch: clips in each part of a batch. trainer: the loop. optimiser: AdamW, over all
    weights.
    """

    data: Annotated[Path, Setting(example="clips")]
    output: Path = Path("output/vae")
    vae: Annotated[Path | None, Setting(example="wan2.2_vae.safetensors")] = None
    frames: Annotated[int, Setting(at_least=1)] = 9
    crop: Annotated[int, Setting(at_least=16)] = 128
    batch: Annotated[int, Setting(at_least=1)] = 2
    trainer: TrainerSettings = field(default_factory=partial(TrainerSettings, steps=2000))
    optimiser: OptimiserSettings = field(
        default_factory=partial(OptimiserSettings, lr=1e-3, betas=(0.9, 0.99), warmup=50, final_scale=0.02)
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.frames % 4 != 1:
            raise ValueError(f"'frames' = {self.frames} must be one more than a multiple of 4; 9 is a common value")
        if self.crop % 16:
            raise ValueError(f"'crop' = {self.crop} must be a multiple of 16; 128 is a common value")


Run = ARRun | DMDRun | VAERun
RUNS: Final[dict[str, type[Run]]] = {"ar": ARRun, "dmd": DMDRun, "vae": VAERun}
