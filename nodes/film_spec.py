"""All that makes a film, as one value: model, text, plan and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

import comfy.model_patcher
import comfy.sd
import comfy.utils
from torch import Tensor

from ..longlive_core.film.film import Drawable, Film, OnStep, ShouldStop
from ..longlive_core.film.storyboard import StoryboardFilm, board_noise
from ..longlive_core.film.storyboard import storyboard as board_plan
from ..longlive_core.memory import MemoryConfig
from ..longlive_core.model import WanConfig
from ..longlive_core.sampling.generate import Generation, generate
from ..longlive_core.sampling.generation import KnownLatents
from ..longlive_core.sampling.noise import NoiseSource, block_noise
from ..longlive_core.script import BlockPlan
from ..longlive_core.take.block_file import Settings
from ..longlive_core.types import LatentShape
from ..longlive_core.vram.budget import activation_bytes, prompt_bytes
from .device_lock import DeviceLock
from .model import HostedModel

Storyboard = Literal["off", "only", "first"]


@dataclass(frozen=True)
class FilmSpec:
    """All that makes a film; called, it starts a generation (`Begin`)."""

    model: comfy.model_patcher.ModelPatcher
    embeddings: Mapping[str, Tensor]
    negative: str
    plan: BlockPlan
    shape: LatentShape
    seed: int
    steps: int
    guidance: float
    memory: MemoryConfig
    device_lock: DeviceLock
    noise: NoiseSource | None = None
    encode: Callable[[str], Tensor] | None = None

    @property
    def config(self) -> WanConfig:
        return self.model.model.diffusion_model.config

    @property
    def asked(self) -> Settings:
        """What changes a block's bits, but for the weights, the text and the size."""
        own = {"seed": self.seed, "steps": self.steps, "guidance": self.guidance, "negative": self.negative}
        return {**own, **asdict(self.memory)}

    @property
    def bytes(self) -> int:
        """Memory of a draw beside the weights. Raises ValueError where the memory cannot keep such blocks."""
        blocks, branches = len(self.plan.blocks), 1 if self.guidance == 1.0 else 2
        dtype = self.model.model.get_dtype_inference()
        return (
            self.memory.bytes(self.config, self.shape, blocks, branches)
            + self.memory.scratch_bytes(self.config, self.shape, blocks, dtype)
            + activation_bytes(self.config, self.shape, dtype.itemsize)
            + prompt_bytes(self.config, 1 + branches, dtype.itemsize)
        )

    def check(self) -> None:
        """Raises ValueError where the text belongs to another model."""
        widths = {embedding.shape[-1] for embedding in self.embeddings.values()}
        if width := next(iter(widths - {self.config.text_dim}), None):
            raise ValueError(
                f"the conditioning has width {width}, but this model takes text of width {self.config.text_dim}: "
                "encode the shots with the text encoder of the model (umt5-xxl, type wan, for LongLive 5B; the CLIP of "
                "LongLive Mini for Mini)"
            )

    def text(self, prompt: str) -> Tensor:
        """The embedding of a prompt; one that came while the film is made is encoded now."""
        if prompt in self.embeddings or self.encode is None:
            return self.embeddings[prompt]
        with self.device_lock.released():
            return self.encode(prompt)

    def __call__(
        self, plan: BlockPlan, known: KnownLatents, on_step: OnStep | None, should_stop: ShouldStop | None
    ) -> Generation:
        model = HostedModel(self.model, self.device_lock)
        return generate(
            model,
            plan,
            self.text,
            self.memory,
            size=(self.shape.height, self.shape.width),
            steps=self.steps,
            seed=self.seed,
            guidance=self.guidance,
            negative=self.negative,
            known=known,
            noise=self.noise,
            attention=model.attention,
            on_step=on_step,
            should_stop=should_stop,
            free=self.device_lock.free_vram,
        )


def make_film(film_spec: FilmSpec, start: Tensor | None, earlier: Drawable | None, storyboard: Storyboard) -> Film:
    """The recipe's film, or in its place ("only") or before it ("first") a storyboard of the shots behind `earlier`."""
    if storyboard == "off":
        return Film(film_spec.plan, film_spec, start, earlier)
    after = 0 if earlier is None else len(earlier.plan.blocks)
    noise = board_noise(film_spec.plan, block_noise(film_spec.seed), after)
    board = Film(board_plan(film_spec.plan, after), replace(film_spec, noise=noise), start, earlier)
    return board if storyboard == "only" else StoryboardFilm(film_spec.plan, film_spec, board, start, earlier)
