"""A model of a few thousand weights and films for it: enough for every rule of the engine, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.render.job import RenderSettings
from longlive.longlive_core.sampling.generate import Generation, generate
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.take import Take
from longlive.longlive_core.types import BlockSpec
from torch import Tensor

from .takes import make_mini, make_settings, make_take


@dataclass(frozen=True)
class Tiny:
    """A random model with blocks of 2 latent frames of 4x6 cells."""

    model: CausalWan
    block_frames: int = 2
    size: tuple[int, int] = (4, 6)

    def plan(self, shots: str, seeds: dict[int, int] | None = None) -> BlockPlan:
        """One prompt per block, `|` before a block that is a cut: "A A |B B"."""
        blocks: list[BlockSpec] = []
        shot = 0
        for index, word in enumerate(shots.split()):
            cut = word.startswith("|")
            shot += cut
            seed = (seeds or {}).get(shot)
            start = index * self.block_frames
            blocks.append(BlockSpec(index, shot, word.lstrip("|"), cut, seed, start, self.block_frames))
        return BlockPlan(tuple(blocks), 24.0, self.block_frames)

    def text(self, prompt: str) -> Tensor:
        """An embedding that depends on the prompt alone."""
        generator = torch.Generator().manual_seed(sum(prompt.encode()) + 1)
        return torch.randn(3, self.model.config.text_dim, generator=generator)

    def memory(self, **changes: Any) -> MemoryConfig:  # noqa: ANN401
        return MemoryConfig(**{"window": 8, "sink": 2, "kv_format": "float32", **changes})

    def generate(self, shots: str, memory: MemoryConfig | None = None, **options: Any) -> Generation:  # noqa: ANN401
        plan = options.pop("plan", None) or self.plan(shots)
        text = options.pop("text", self.text)
        model = options.pop("model", self.model)
        return generate(model, plan, text, memory or self.memory(), **{"size": self.size, "steps": 2, **options})

    def film(self, shots: str, memory: MemoryConfig | None = None, **options: Any) -> Tensor:  # noqa: ANN401
        """The whole film, `[B, C, F, H, W]`."""
        return torch.cat([block.latents for block in self.generate(shots, memory, **options)], dim=2)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    torch.manual_seed(0)
    config = WanConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4)
    return Tiny(CausalWan(config).requires_grad_(False))


@pytest.fixture(scope="module")
def mini() -> Mini:
    """A random model for `takes.SCRIPT`."""
    return make_mini()


@pytest.fixture
def settings(tmp_path: Path) -> RenderSettings:
    """Those of the film of `takes.SCRIPT`, in a folder of its own."""
    return make_settings(tmp_path)


@pytest.fixture
def take(mini: Mini, settings: RenderSettings) -> Take:
    """A whole film's."""
    return make_take(mini, settings)
