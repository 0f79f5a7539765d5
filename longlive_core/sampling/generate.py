"""Entry point of sampling: checks the settings and returns a `Generation`, which samples block by block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..memory import DEFAULT_MEMORY, FilmKVCache, MemoryConfig, Pools, TextEncoder
from ..model import FlowModel
from ..model.attention import Attention, default_attention
from ..model.cuda_graph import Capture
from ..model.linears import NVFP4Linear, base_of, linear_layers
from ..types import Block, BlockSpec, LatentShape
from .generation import Generation, KnownLatents, NotFiniteError, Plan, Step
from .graphed_model import GraphedModel, obstacle
from .noise import MAX_SEED, NoiseSource, block_noise
from .seam import SEAMS, Seam
from .snapshot import Snapshot
from .unipc import unipc

__all__ = ["Generation", "NotFiniteError", "Plan", "Step", "generate"]

log = logging.getLogger(__name__)


def generate(
    model: FlowModel,
    plan: Plan,
    text: TextEncoder,
    memory: MemoryConfig = DEFAULT_MEMORY,
    *,
    size: tuple[int, int],
    steps: int = 4,
    seed: int | None = None,
    guidance: float = 1.0,
    negative: str = "",
    batch: int = 1,
    shift: float = 5.0,
    seam: Seam = "plain",
    prefix: Tensor | None = None,
    known: KnownLatents | None = None,
    noise: NoiseSource | None = None,
    cast: Sequence[Block] = (),
    attention: Attention | None = None,
    pools: Pools | None = None,
    on_step: Callable[[Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    free: Callable[[], None] | None = None,
    capture: Capture | None = None,
    resume: Snapshot | None = None,
) -> Generation:
    """Returns an iterator that samples the blocks of a plan one by one, on request.

    text: prompt → `[L, text_dim]`, called once per distinct prompt. size: (height, width) of the latents, 1/16 of the
    pixels. guidance: 1 runs the model once per step; other values run it for `negative` too, with a second KV cache.
    batch: number of films, each with its own noise; see `batch_noise` for films of several seeds. shift: of the
    timestep schedule, see `unipc`. seam: how a block joins the one that it continues, see `seam.py`; aligned blocks
    take 9/8 of the tokens.
    prefix: given latents at the start of the film, `[B, C, F, H, W]` normalised: one frame for image to video, whole
    blocks to extend a film; they are returned as blocks too. known: called for every block after the prefix; see
    `KnownLatents`. seed: of the film, 0 by default. noise: the source of noise in place of a seed.
    cast: blocks of other films that shots recall as -1, -2, …, latents `[1, C, F, H, W]`.
    pools: of the KV cache, where other ranks share it; see `LedModel`.
    on_step: called after every step; its exceptions pass through. should_stop: called before every model call; when it
    returns true the iteration ends, and a later `next` samples the unfinished block from the start. free: called if the
    device runs out of memory, before the second attempt; see `retry_on_oom`.
    capture: records the calls of steady blocks as CUDA graphs, where nothing is in the way; see `GraphedModel`.
    resume: a snapshot to continue from; see `Generation.restore`.

    Raises ValueError, before any work, for settings that cannot be run. The iteration raises NotFiniteError and
    OutOfMemoryError.
    """
    if seed is not None and noise is not None:
        raise ValueError(f"seed {seed} and a source of noise are both given; leave one of them out")
    if not 0 <= (seed or 0) <= MAX_SEED:
        raise ValueError(f"seed {seed} is outside 0 … {MAX_SEED}")
    if batch < 1:
        raise ValueError(f"batch {batch} is below 1")
    if batch > 1 and rounds_together(model):
        raise ValueError(
            f"batch {batch}: this model rounds activations to NVFP4 with one amax over all films (W4A4), so that each "
            "film would depend on the others; make the films one by one"
        )
    if seam not in SEAMS:
        raise ValueError(f"seam '{seam}' is not known; choose one of {', '.join(SEAMS)}")
    _check_plan(plan, len(cast))
    memory.check_recalled(plan.blocks, plan.block_frames)
    shape = LatentShape(batch, model.config.channels, plan.block_frames, *size)
    _check_cast(cast, shape)
    schedule = unipc(steps, shift)
    known = _known_latents(_checked_prefix(prefix, plan, shape), known)
    attend, avoided = attention or default_attention(model.device), None if guidance == 1.0 else negative
    blocks = len(plan.blocks) + len(cast)
    cache = FilmKVCache(model, memory, shape, blocks, text, attend, negative=avoided, pools=pools)
    noise = noise or block_noise(seed or 0)
    if capture is not None:
        model = _graphed(model, memory, capture)
    generation = Generation(
        model, plan, cache, schedule, shape, guidance, noise, known, on_step, should_stop, free, seam, cast
    )
    if resume is not None:
        generation.restore(resume)
    return generation


def rounds_together(model: FlowModel) -> bool:
    """Whether a layer of the model computes a number over all films of a batch."""
    layers = linear_layers(model).values() if isinstance(model, nn.Module) else ()
    bases = (base_of(layer) for layer in layers)
    return any(isinstance(layer, NVFP4Linear) and layer.activations == "nvfp4" for layer in bases)


def _graphed(model: FlowModel, memory: MemoryConfig, capture: Capture) -> FlowModel:
    reason = obstacle(model, memory)
    if reason is None:
        return GraphedModel(model, capture)
    log.info("no CUDA graphs: %s", reason)
    return model


def _check_plan(plan: Plan, cast: int) -> None:
    if not plan.blocks:
        raise ValueError("the plan has no blocks; the script needs at least one shot")
    for index, block in enumerate(plan.blocks):
        if (block.index, block.start, block.frames) != (index, index * plan.block_frames, plan.block_frames):
            raise ValueError(
                f"block {index} of the plan has index {block.index} and latent frames {block.start} to "
                f"{block.start + block.frames - 1}; blocks must be consecutive, with {plan.block_frames} frames each"
            )
        if late := [other for other in block.recalled if other >= index]:
            raise ValueError(f"block {index} of the plan recalls block {late[0]}, which is not before it")
        check_cast_loaded(block, cast)
    if plan.blocks[0].cut:
        raise ValueError("the first block of a film cannot be a cut; a cut needs a shot before it")


def check_cast_loaded(block: BlockSpec, cast: int) -> None:
    """Raises ValueError if a block recalls a cast file beyond the first `cast`, which are loaded."""
    if unknown := [-other for other in block.recalled if other < -cast]:
        raise ValueError(
            f"shot {block.shot + 1} recalls cast file {unknown[0]}, but {cast or 'none'} of the film's cast files "
            "is loaded; give the film its cast files"
        )


def _check_cast(cast: Sequence[Block], shape: LatentShape) -> None:
    """Raises ValueError for blocks of another shape or in another order."""
    for number, block in enumerate(cast, 1):
        if block.index != -number or tuple(block.latents.shape) != shape.with_batch(1).as_tuple():
            raise ValueError(
                f"cast file {number} has block {block.index} and latents of {tuple(block.latents.shape)}, but must "
                f"have {-number} and {shape.with_batch(1).as_tuple()}; use one of a film of this size"
            )


def _known_latents(prefix: Tensor, known: KnownLatents | None) -> KnownLatents:
    """The frames of the prefix `[B, C, F, H, W]`, and what `known` gives for the blocks after it."""

    def latents(block: BlockSpec) -> Tensor | None:
        given = prefix[:, :, block.start : block.start + block.frames]
        return given if given.shape[2] or known is None else known(block)

    return latents


def _checked_prefix(prefix: Tensor | None, plan: Plan, shape: LatentShape) -> Tensor:
    """The prefix `[B, C, F, H, W]` in float32 on the CPU, with F = 0 for none. Raises ValueError if it does not fit."""
    if prefix is None:
        return torch.empty(shape.with_frames(0).as_tuple())
    frames, limit = prefix.shape[2] if prefix.ndim == 5 else 0, len(plan.blocks) * plan.block_frames
    if tuple(prefix.shape) != shape.with_frames(frames).as_tuple() or not 1 <= frames <= limit:
        raise ValueError(
            f"prefix has shape {tuple(prefix.shape)}, expected [{shape.batch}, {shape.channels}, 1 … {limit} latent "
            f"frames, {shape.height}, {shape.width}]"
        )
    if not bool(torch.isfinite(prefix).all()):
        raise ValueError("prefix contains NaN or infinite values; check the VAE and the input image or video")
    return prefix.to("cpu", torch.float32)
