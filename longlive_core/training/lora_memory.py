"""The memory of a run that trains a LoRA, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch

from ..model import CausalWan
from ..types import BLOCK_FRAMES, video_frames
from ..units import format_bytes
from ..vram.advice import choose
from ..vram.device_memory import device_memory
from ..vram.training_budget import TrainingBudget
from .clip_scan import Scan
from .settings import LoraRun


def run_budget(run: LoraRun, scans: Sequence[Scan], model: CausalWan, memory: int) -> TrainingBudget:
    """The budget of the run's largest batch, with the base as it is loaded.

    scans: of the data, and of the prior if there is one. memory: bytes of the device.
    """
    loaded = sum(value.numel() * value.element_size() for value in chain(model.parameters(), model.buffers()))
    layouts = [(video.size, layout) for scan in scans for video in scan.videos for layout in video.clips]

    def budget(size: tuple[int, int], blocks: int, shots: int) -> TrainingBudget:
        return TrainingBudget(
            memory,
            size,
            video_frames(BLOCK_FRAMES * blocks),
            shots,
            run.rank,
            offload=run.optimiser.offload,
            checkpointing=run.ar.checkpointing,
            clips=run.clips,
            window=run.ar.window or BLOCK_FRAMES * blocks,
            loaded=loaded,
            overhead=0,
            model=model.config,
            number=model.dtype.itemsize,
        )

    shapes = {(size, len(layout), 1 + sum(block.cut for block in layout)) for size, layout in layouts}
    return max((budget(*shape) for shape in shapes), key=lambda item: item.total)


def check_memory(run: LoraRun, scans: Sequence[Scan], model: CausalWan, device: torch.device) -> None:
    """Raises ValueError if the run's largest batch needs more memory than the device has; names what to change."""
    memory = device_memory(device)
    if memory is None:
        return
    budget = run_budget(run, scans, model, memory)
    if not budget.fits:
        enough = [item.change for item in choose(budget, list(budget.changes())) if item.fits]
        remedy = f"enough is: {'; or '.join(enough)}" if enough else "nothing is enough: use a smaller base"
        raise ValueError(
            f"training needs about {format_bytes(budget.total)} at its peak, but '{device}' has {format_bytes(memory)} "
            f"free; {remedy}"
        )
