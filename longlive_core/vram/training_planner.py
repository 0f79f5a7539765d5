"""Plans the VRAM of training a LoRA: whether it fits a card, and otherwise what to change."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..types import BLOCK_FRAMES, video_frames
from ..units import GIB, plural
from .advice import Advice, choose
from .budget import WEIGHT_BYTES
from .planner import advice_table, parts_table, verdict
from .training_budget import TrainingBudget


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """The VRAM budget of a training run on a card. advice: what to change if it does not fit."""

    budget: TrainingBudget
    advice: tuple[Advice, ...]

    def text(self) -> str:
        """The plan as text: what is trained, a table of the parts, the verdict and the advice."""
        budget, (height, width) = self.budget, self.budget.size
        blocks, frames = budget.blocks, video_frames(BLOCK_FRAMES * budget.blocks)
        lines = [
            f"LoRA of rank {budget.rank}, {height}x{width} pixels (height x width), a card of {budget.vram / GIB:g} GB",
            f"{plural(budget.clips, 'clip')} of {budget.frames} frames in {plural(budget.shots, 'shot')}: "
            f"{plural(blocks, 'block')}, {frames} frames, {budget.tokens} tokens a pass",
            "",
            *parts_table(budget.parts, budget.total, budget.vram),
            "",
            verdict(budget.total, budget.vram),
            "Computed from shapes and traced on a CPU; encoder and text encoder are off the card by then.",
        ]
        return "\n".join([*lines, *advice_table(self.advice)])


def plan_training(budget: TrainingBudget, *, weights: str | None = None, offload: bool | None = None) -> TrainingPlan:
    """Plans a run. weights, offload: None chooses the first that fits, the best format and no offload first.

    If nothing fits, the plan is that of the smallest, with advice.
    """
    formats = list(WEIGHT_BYTES) if weights is None else [weights]
    choices = [
        replace(budget, weights=name, offload=moved)
        for name in formats
        for moved in ((False, True) if offload is None else (offload,))
    ]
    chosen = next((choice for choice in choices if choice.fits), choices[-1])
    return TrainingPlan(chosen, () if chosen.fits else choose(chosen, list(chosen.changes())))
