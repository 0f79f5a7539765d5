"""Training steps of LongLive Mini on random latents: milliseconds of a step, loss included, and its peak of memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from longlive.longlive_core.mini.config import LATENT_SIZE, MINI_DIT
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.nvfp4_products import NVFP4Settings
from longlive.longlive_core.training.ar_inputs import ARBatch
from longlive.longlive_core.training.ar_settings import ARSettings
from longlive.longlive_core.training.ar_stage import ARStage
from longlive.longlive_core.training.stage import OptimiserSettings
from longlive.longlive_core.types import BLOCK_FRAMES

from .ladder import clear
from .part import Found, Task
from .timing import CUDA, DEVICE, timed

WINDOW = 4 * BLOCK_FRAMES
ARMS: dict[str, tuple[ARSettings, bool]] = {
    "float32": (ARSettings(window=WINDOW), False),
    "bf16": (ARSettings(window=WINDOW), True),
    "bf16, checkpointing": (ARSettings(window=WINDOW, checkpointing=True), True),
    "NVFP4": (ARSettings(window=WINDOW, kv_format="nvfp4", nvfp4=NVFP4Settings()), False),
}
"""Settings of the stage, and whether bf16 is the precision of the trainer."""
FILMS, BLOCKS, STEPS = 8, 5, 6


class RandomFilms:
    """An `ARSource` of random latents in one shot."""

    def __init__(self, films: int, blocks: int) -> None:
        self._films, self._blocks = films, blocks

    def batch(self, rng: np.random.Generator, /) -> ARBatch:
        """See `ARSource`."""
        frames = self._blocks * BLOCK_FRAMES
        shape = (self._films, MINI_DIT.channels, frames, *LATENT_SIZE)
        text = rng.standard_normal((1, 8, MINI_DIT.text_dim), dtype=np.float32)
        return ARBatch(
            clean=torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(DEVICE),
            text=torch.from_numpy(text).to(DEVICE),
            prompts=torch.zeros(self._films, self._blocks, dtype=torch.long, device=DEVICE),
            positions=torch.arange(frames, dtype=torch.float64, device=DEVICE),
            cuts=(False,) * self._blocks,
        )


def tasks(toy: bool) -> list[Task]:
    """One task for each precision."""
    films, blocks, steps = (1, 2, 1) if toy else (FILMS, BLOCKS, STEPS)
    config = replace(MINI_DIT, num_layers=1) if toy else MINI_DIT
    return [Task(name, partial(train, name, config, RandomFilms(films, blocks), steps)) for name in ARMS]


def train(name: str, config: WanConfig, source: RandomFilms, steps: int) -> Found:
    """Trains for some steps after one that is not counted. The loss must be finite."""
    clear()
    settings, mixed = ARMS[name]
    torch.manual_seed(0)
    model = CausalWan(config)
    model.init_weights()
    model.to(DEVICE)
    stage = ARStage(model, source, settings, OptimiserSettings(1e-4), 0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses: list[float] = []

    def step() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=mixed):
            loss = stage.loss("model", len(losses), 0).value
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))

    step()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    samples = [timed(step).wall for _ in range(steps)]
    figures: dict[str, float | str] = {"loss of the first step": losses[0], "loss of the last step": losses[-1]}
    if CUDA:
        figures["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    finite = all(np.isfinite(losses))
    return Found(figures, {"ms a step": samples}, "" if finite else f"the losses are {losses}")
