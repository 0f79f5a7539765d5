"""Batches of clips for distillation, which needs prompts only: of given scripts, or of the embedded model's world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..memory import TextEncoder
from ..sampling.generation import Plan
from ..script import CUT_PREFIX, BlockPlan, ShotScript
from ..types import BLOCK_FRAMES, FPS, BlockSpec
from .captions import caption
from .clip_prompts import ClipPrompts
from .dmd import Batch
from .films import CUT_PATTERNS
from .world import sample_film

# Lengths of the shots of a film in blocks: films that are long enough to read their memory.
WORLD_PATTERNS = tuple(pattern for pattern in CUT_PATTERNS if 3 <= sum(pattern) <= 8)


class PlanClips:
    """Clips of given block plans: a batch holds films whose cuts are at the same blocks, drawn with replacement.

    plans: of any lengths. encode: called once per distinct prompt. negative: the negative prompt of the real score.
    batch: number of clips in a batch. Raises ValueError if there are no plans.
    """

    def __init__(self, plans: Sequence[Plan], encode: TextEncoder, negative: str, batch: int = 1) -> None:
        if not plans or not all(plan.blocks for plan in plans):
            raise ValueError("distillation needs scripts with at least one block; give a script")
        self._plans, self._encode, self._negative, self._batch = tuple(plans), encode, negative, batch
        self._embeddings: dict[str, Tensor] = {}

    def batch(self, rng: np.random.Generator, /) -> Batch:
        """Returns a batch. See `ClipSource`."""
        first = int(rng.integers(len(self._plans)))
        cuts = _cuts(self._plans[first])
        same = [index for index, plan in enumerate(self._plans) if _cuts(plan) == cuts]
        chosen = [first, *(int(index) for index in rng.choice(same, self._batch - 1))]
        name = "plans " + ", ".join(str(index) for index in chosen)
        return _clips([self._plans[index] for index in chosen], self._embedding, self._negative, name)

    def _embedding(self, prompt: str) -> Tensor:
        if prompt not in self._embeddings:
            self._embeddings[prompt] = self._encode(prompt)
        return self._embeddings[prompt]


class WorldClips:
    """Clips of random scripts of the embedded model's world, new ones in each batch; see `world_plan`.

    encode, negative, batch: as for `PlanClips`.
    """

    def __init__(self, encode: TextEncoder, negative: str, batch: int = 1) -> None:
        self._encode, self._negative, self._batch = encode, negative, batch

    def batch(self, rng: np.random.Generator, /) -> Batch:
        """Returns a batch. See `ClipSource`."""
        pattern = WORLD_PATTERNS[rng.integers(len(WORLD_PATTERNS))]
        plans = [world_plan(pattern, rng) for _ in range(self._batch)]
        return _clips(plans, self._encode, self._negative, f"script: {plans[0].blocks[0].prompt}")


def world_plan(pattern: Sequence[int], rng: np.random.Generator) -> BlockPlan:
    """Returns the plan of a random script, whose first shot describes the hero and whose later shots do not.

    pattern: blocks in each shot.
    """
    film = sample_film(rng, (0,) * len(pattern))
    blocks: list[BlockSpec] = []
    for shot, (length, shown) in enumerate(zip(pattern, film.shots, strict=True)):
        text = caption(None if shot else film.hero, shown, rng)
        for number in range(length):
            cut, index = shot > 0 and number == 0, len(blocks)
            prompt = CUT_PREFIX + text if cut else text
            blocks.append(BlockSpec(index, shot, prompt, cut, None, index * BLOCK_FRAMES, BLOCK_FRAMES))
    return BlockPlan(tuple(blocks), FPS, BLOCK_FRAMES)


def read_plans(path: Path, block_frames: int = BLOCK_FRAMES) -> tuple[BlockPlan, ...]:
    """Returns the plan of a shot script, or of each script (.txt) of a folder in the order of their names.

    Raises ScriptError for a faulty script, and ValueError for a folder without scripts and for a script that recalls.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path} has no shot script (.txt); put one file for each film there, or use 'world'")
    plans = tuple(ShotScript.read(file).plan(block_frames=block_frames) for file in files)
    for file, plan in zip(files, plans, strict=True):
        if any(block.recalled for block in plan.blocks):
            raise ValueError(f"{file} recalls shots (@recall, recall: auto), which training does not: leave them out")
    return plans


def _clips(plans: Sequence[Plan], encode: TextEncoder, negative: str, name: str) -> Batch:
    """A batch of one clip for each plan; the cuts of all plans are at the same blocks."""
    prompts = [[block.prompt for block in plan.blocks] for plan in plans]
    distinct = sorted({prompt for row in prompts for prompt in row})
    rows = torch.tensor([[distinct.index(prompt) for prompt in row] for row in prompts])
    text = stacked([encode(prompt) for prompt in distinct])
    return Batch(ClipPrompts(text, rows, _cuts(plans[0])), stacked([encode(negative)]), name=name)


def _cuts(plan: Plan) -> tuple[bool, ...]:
    return tuple(block.cut for block in plan.blocks)


def stacked(embeddings: Sequence[Tensor]) -> Tensor:
    """`[P, L, D]` of embeddings `[L, D]`, with zeros behind shorter ones, as the model pads them."""
    longest = max(len(embedding) for embedding in embeddings)
    return torch.stack([F.pad(embedding, (0, 0, 0, longest - len(embedding))) for embedding in embeddings])
