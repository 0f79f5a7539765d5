"""Batches of clips for distillation, which needs prompts only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..memory import TextEncoder
from ..sampling.generation import Plan
from .dmd import Batch
from .rollout import ClipPrompts


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
        prompts = [[block.prompt for block in self._plans[index].blocks] for index in chosen]
        distinct = sorted({prompt for row in prompts for prompt in row})
        rows = torch.tensor([[distinct.index(prompt) for prompt in row] for row in prompts])
        text = _stacked([self._embedding(prompt) for prompt in distinct])
        negative = self._embedding(self._negative).unsqueeze(0)
        name = "plans " + ", ".join(str(index) for index in chosen)
        return Batch(ClipPrompts(text, rows, cuts), negative, name=name)

    def _embedding(self, prompt: str) -> Tensor:
        if prompt not in self._embeddings:
            self._embeddings[prompt] = self._encode(prompt)
        return self._embeddings[prompt]


def _cuts(plan: Plan) -> tuple[bool, ...]:
    return tuple(block.cut for block in plan.blocks)


def _stacked(embeddings: Sequence[Tensor]) -> Tensor:
    """`[P, L, D]` of embeddings `[L, D]`, with zeros behind shorter ones, as the model pads them."""
    longest = max(len(embedding) for embedding in embeddings)
    return torch.stack([F.pad(embedding, (0, 0, 0, longest - len(embedding))) for embedding in embeddings])
