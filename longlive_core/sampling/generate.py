"""From a plan to a film: settings are checked here, then `Generation` makes block after block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..memory import DEFAULT_MEMORY, FilmKVCache, MemoryConfig, TextEncoder
from ..model import FlowModel
from ..model.attention import Attention, default_attention
from ..types import BlockSpec, LatentShape
from .generation import Generation, KnownLatents, NotFiniteError, Plan, Step
from .noise import MAX_SEED, NoiseSource, block_noise
from .snapshot import Snapshot
from .unipc import unipc

__all__ = ["Generation", "NotFiniteError", "Plan", "Step", "generate"]


def generate(
    model: FlowModel,
    plan: Plan,
    text: TextEncoder,
    memory: MemoryConfig = DEFAULT_MEMORY,
    *,
    size: tuple[int, int],
    steps: int = 4,
    seed: int = 0,
    guidance: float = 1.0,
    negative: str = "",
    batch: int = 1,
    shift: float = 5.0,
    prefix: Tensor | None = None,
    known: KnownLatents | None = None,
    noise: NoiseSource | None = None,
    attention: Attention | None = None,
    on_step: Callable[[Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    free: Callable[[], None] | None = None,
    resume: Snapshot | None = None,
) -> Generation:
    """Makes the plan's blocks one by one, as they are asked for.

    text: prompt → `[L, text_dim]`, called once per distinct prompt. size: (height, width) in latent cells, 1/16 of
    pixels. guidance: 1 runs one branch; any other value runs `negative` beside it, with a memory of its own.
    prefix: known latents at the start of the film, `[B, C, F, H, W]` normalised: one frame is image to video, whole
    blocks are a film to be continued; they come out as blocks too. known: asked for the latents of every block behind
    the prefix, `[B, C, F, H, W]`; what it gives is not sampled. noise: where noise comes from, by default from the
    seeds. on_step is told of every step; what it raises passes through. should_stop is asked before every model call:
    when true the iteration ends, and asking for the next block again makes the unfinished one anew. free: called
    where the device has no room, before the one further try; see `retry_on_oom`.
    resume: a snapshot of a run of the same kind; its blocks are not made again.

    Raises ValueError, before any work, for settings that cannot be run; `NotFiniteError` from the iteration.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed} is outside 0 … {MAX_SEED}")
    if batch < 1:
        raise ValueError(f"batch {batch} must be at least 1")
    _check_plan(plan)
    shape = LatentShape(batch, model.config.channels, plan.block_frames, *size)
    schedule = unipc(steps, shift)
    start = _checked_prefix(prefix, plan, shape)
    kept = FilmKVCache(
        model,
        memory,
        shape,
        len(plan.blocks),
        text,
        attention or default_attention(model.device),
        negative=None if guidance == 1.0 else negative,
    )
    generation = Generation(
        model,
        plan,
        kept,
        schedule,
        shape,
        guidance,
        noise or block_noise(seed),
        _known_latents(start, known),
        on_step,
        should_stop,
        free,
    )
    if resume is not None:
        generation.restore(resume)
    return generation


def _check_plan(plan: Plan) -> None:
    if not plan.blocks:
        raise ValueError("the plan has no blocks; write at least one shot")
    for index, block in enumerate(plan.blocks):
        if (block.index, block.start, block.frames) != (index, index * plan.block_frames, plan.block_frames):
            raise ValueError(
                f"block {index} of the plan is numbered {block.index} with latent frames {block.start} to "
                f"{block.start + block.frames - 1}; blocks must follow each other, {plan.block_frames} frames each"
            )
    if plan.blocks[0].cut:
        raise ValueError("the first block of a film cannot be a cut: there is nothing to cut from")


def _known_latents(start: Tensor, known: KnownLatents | None) -> KnownLatents:
    def latents(block: BlockSpec) -> Tensor | None:
        given = start[:, :, block.start : block.start + block.frames]
        return given if given.shape[2] or known is None else known(block)

    return latents


def _checked_prefix(prefix: Tensor | None, plan: Plan, shape: LatentShape) -> Tensor:
    if prefix is None:
        return torch.empty(shape.with_frames(0).as_tuple())
    frames, limit = prefix.shape[2] if prefix.ndim == 5 else 0, len(plan.blocks) * plan.block_frames
    if tuple(prefix.shape) != shape.with_frames(frames).as_tuple() or not 1 <= frames <= limit:
        raise ValueError(
            f"prefix {tuple(prefix.shape)} must be [{shape.batch}, {shape.channels}, 1 … {limit} latent frames, "
            f"{shape.height}, {shape.width}]"
        )
    if not bool(torch.isfinite(prefix).all()):
        raise ValueError("prefix holds NaN or infinite values")
    return prefix.to("cpu", torch.float32)
