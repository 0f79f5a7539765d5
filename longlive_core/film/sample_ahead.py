"""Samples a run of a film with independent shots, while another process makes the film."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..take import Take
from ..take.ahead import Run, block_path, sampled_ahead, sink_blocks, sink_history
from ..take.block_file import latents_digest, load_block, save_block
from ..types import Block, BlockSpec
from .sampler_settings import ShouldStop, StartGeneration


def sample_ahead(
    take: Take, run: Run, start: StartGeneration, check: Callable[[], None], should_stop: ShouldStop | None = None
) -> Iterator[BlockSpec]:
    """Samples and stores the missing blocks of a run whose lock the caller has, and yields each; fewer after a stop.

    check: that of the lock. Raises ValueError if the global sink is not stored, and what sampling and storing raise.
    """
    history, done = sink_history(take), sampled_ahead(take, run)
    if history is None:
        raise ValueError(f"{take.folder} has not all blocks of the global sink, which its other shots depend on")
    blocks = [*(load_block(take.path(spec), spec, take.settings)[0] for spec in sink_blocks(take)), *done]
    latents = {block.index: block.latents for block in blocks}

    def known(spec: BlockSpec) -> Tensor | None:
        return latents.get(spec.index)

    generation = start(take.plan, known, None, should_stop)
    for spec in (*sink_blocks(take), *run):
        if spec == run[0]:
            generation.skip_towards(spec.index)
        sampled = next(generation, None)
        if sampled is None:
            return
        if spec in run and spec.index not in latents:
            check()
            block = Block(spec, sampled.latents.to("cpu", torch.float32))
            history = history.then(save_block(block_path(take, run, spec), block, take.settings, history))
            yield spec
        elif spec in run:
            history = history.then(latents_digest(latents[spec.index]))
