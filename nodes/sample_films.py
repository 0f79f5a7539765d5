"""The films that a training run makes to show what it has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
from torch import Tensor

from ..longlive_core.model import FlowModel
from ..longlive_core.script import BlockPlan
from ..longlive_core.training.sample_film import write_sample
from .lora_base import LoraBase
from .sampler import default_seam
from .training_view import TrainingView

FOLDER = "samples"


@dataclass(frozen=True)
class SampleFilms:
    """Films of one script and seed, whose weights alone differ.

    every: steps between them; 0 is never. text: embedding `[L, text_dim]` of each prompt. size: (height, width) in
    pixels. folder: of the run.
    """

    base: LoraBase
    every: int
    plan: BlockPlan
    text: Mapping[str, Tensor]
    size: tuple[int, int]
    seed: int
    folder: Path

    def due(self, step: int, steps: int) -> bool:
        """Whether a film is made after a step; one is after the last step."""
        return self.every > 0 and (step % self.every == 0 or step == steps)

    def make(self, model: FlowModel, step: int, view: TrainingView) -> None:
        """Makes the film of a step and shows it on the node; an interrupt leaves no film. Raises as `write_sample`."""
        comfy.model_management.load_models_gpu([self.base.vae.patcher])
        done = write_sample(
            model,
            self.plan,
            self.text.__getitem__,
            self.base.chunks,
            path := self.folder / FOLDER / f"step_{step:06}.mp4",
            size=self.size,
            seed=self.seed,
            seam=default_seam(self.base.model),
            should_stop=comfy.model_management.processing_interrupted,
        )
        if done:
            view.sample(path, self.plan, self.size)

    @property
    def newest(self) -> Path | None:
        """The file of the newest film; None if there is none."""
        return max((self.folder / FOLDER).glob("step_*.mp4"), default=None)
