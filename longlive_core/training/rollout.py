"""Backward simulation: a clip is sampled as at inference, block by block, and one step of each block gets a gradient.

The sampler's steps, the KV cache, its window and the clean pass are those of inference. With exit step e, a block runs
as follows; only step e is recorded by autograd:

    steps 0 … e − 1    UniPC                                            no gradient
    step e             x0 = x_t − σ(t_e) · flow                         gradient
    clean pass         writes the K/V of 0.995 · x0 + 0.005 · noise     no gradient

Step e reads the K/V of earlier blocks from copies that nothing overwrites. So the backward pass is right however far
the window has moved on, and activations may be recomputed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from ..memory import BlockKVCache, FilmKVCache, MemoryConfig
from ..memory.pools import RankPools
from ..memory.prompts import PromptKV
from ..model import FlowModel, KeyValue, KVCache, TextKVCache
from ..model.attention import Attention, default_attention
from ..model.transformer import RunLayer, call_layer
from ..parallel import Ranks
from ..sampling.unipc import unipc
from ..types import BlockSpec, LatentShape
from .clip_prompts import ClipPrompts
from .graded_pool import GradedPool, LayerKV, straight_through
from .schedule import TimestepTable, add_noise, clean_from_flow
from .teacher_forcing import recompute_layer


class TrainableModel(FlowModel, Protocol):
    """A `FlowModel` whose layers may run again in the backward pass, such as `AdaptedModel`.

    ranks: processes that share its calls, each with the K/V of its own heads.
    """

    @property
    def ranks(self) -> Ranks:
        """See above."""
        ...

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        text: TextKVCache,
        kv: KVCache,
        positions: Tensor,
        *,
        run_layer: RunLayer = call_layer,
    ) -> Tensor:
        """See `CausalWan.forward`."""
        ...


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """How clips are simulated.

    steps, shift: of the sampler. memory: the KV cache as at inference; its `rope_offset` is applied at cuts, and 0
    turns it off. straight_through: let the gradient of a block flow into the earlier blocks as LongLive 2.0 does:
    through the K/V of their graded calls, at the values of their clean passes; otherwise memory is detached.
    checkpointing: keep only the inputs of each transformer block for the backward pass, and compute the rest again.
    """

    steps: int = 4
    shift: float = 5.0
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    straight_through: bool = False
    checkpointing: bool = False


@dataclass(frozen=True, slots=True)
class GradedCall:
    """The exit step of one block: input x, timesteps t `[B, F]`, flow and x0; x, flow and x0 `[B, C, F, H, W]`."""

    block: BlockSpec
    x: Tensor
    t: Tensor
    flow: Tensor
    x0: Tensor


def rollout(
    model: TrainableModel,
    settings: RolloutSettings,
    prompts: ClipPrompts,
    exit_step: int,
    noise: Tensor,
    clean_noise: Tensor,
    *,
    image: Tensor | None = None,
    grad: bool = True,
    attention: Attention | None = None,
) -> Iterator[GradedCall]:
    """Yields the exit step of each block, in film order. A block's clean pass runs when the next one is requested.

    exit_step: the step that all blocks end at, 0 … steps − 1. noise, clean_noise: of the clip and of its clean passes,
    `[B, C, F, H, W]`. image: the clip's first latent frames, `[B, C, 1 … block − 1, H, W]`, for image to video; they
    get timestep 0 and are never sampled. grad: whether the exit steps get a gradient. attention: by default the fastest
    that PyTorch has.

    Raises ValueError for shapes, steps and memory settings that do not fit.
    """
    block_frames = prompts.block_frames(noise)
    if noise.shape != clean_noise.shape:
        raise ValueError(f"noise {tuple(noise.shape)} and clean noise {tuple(clean_noise.shape)} differ in shape")
    if not 0 <= exit_step < settings.steps:
        raise ValueError(f"exit step {exit_step} is outside 0 … {settings.steps - 1}")
    if image is not None and not 1 <= image.shape[2] < block_frames:
        raise ValueError(f"the image has {image.shape[2]} latent frames, but must have 1 … {block_frames - 1}")
    simulation = _Simulation(
        model, settings, prompts, exit_step, noise, image, block_frames, attention or default_attention(model.device)
    )
    return simulation.run(clean_noise, grad)


class _Simulation:
    """The state of one rollout: the KV cache of inference, and copies of its blocks for the graded calls."""

    def __init__(
        self,
        model: TrainableModel,
        settings: RolloutSettings,
        prompts: ClipPrompts,
        exit_step: int,
        noise: Tensor,
        image: Tensor | None,
        block_frames: int,
        attention: Attention,
    ) -> None:
        self._model, self._settings, self._prompts, self._attention = model, settings, prompts, attention
        self._exit_step, self._image = exit_step, image
        self._noise = noise.to(model.device, torch.float32)
        self._schedule = unipc(settings.steps, settings.shift)
        self._table = TimestepTable.shifted(settings.shift)
        self._specs = prompts.specs(block_frames)
        self._shape = LatentShape(noise.shape[0], noise.shape[1], block_frames, noise.shape[3], noise.shape[4])
        texts = {spec.prompt: prompts.block(spec.index) for spec in self._specs}
        pools = None if model.ranks.size == 1 else RankPools(model.ranks)
        self._cache = FilmKVCache(
            model, settings.memory, self._shape, len(self._specs), texts.__getitem__, attention, pools=pools
        )
        # By block: copies of the K/V in the window, and the K/V of graded calls with their graph.
        self._past: dict[int, LayerKV] = {}
        self._graded: dict[int, LayerKV] = {}

    def run(self, clean_noise: Tensor, grad: bool) -> Iterator[GradedCall]:
        for spec in self._specs:
            rows = slice(spec.start, spec.start + spec.frames)
            self._cache.begin(spec)
            with torch.no_grad():
                x = self._denoise(spec, self._noise[:, :, rows])
            call = self._exit(spec, x, grad)
            yield call
            with torch.no_grad():
                self._clean_pass(spec, call.x0.detach(), clean_noise[:, :, rows])
            self._cache.end(spec)

    def _denoise(self, spec: BlockSpec, noise: Tensor) -> Tensor:
        """The input of the exit step, `[B, C, F, H, W]`."""
        x, flows = self._with_image(spec, noise), list[Tensor]()
        for t in self._schedule.timesteps[: self._exit_step]:
            (text, kv), *_ = self._cache.calls(spec, clean=False)
            flow = self._model(x.to(self._model.dtype), self._timesteps(spec, t), text, kv, self._positions(spec))
            flows.append(flow.float())
            x = self._with_image(spec, self._schedule.advance(noise, flows))
        return x

    def _exit(self, spec: BlockSpec, x: Tensor, grad: bool) -> GradedCall:
        """The exit step of a block."""
        t = self._timesteps(spec, self._schedule.timesteps[self._exit_step])
        with torch.no_grad():
            (text, kv), *_ = self._cache.calls(spec, clean=False)
        if grad:
            with torch.no_grad():
                self._copy_past(kv)
            pool = GradedPool.of(kv, self._past, self._model.device)
            flow = self._graded_flow(spec, x, t, replace(kv, pool=pool))
            if self._settings.straight_through:
                self._graded[spec.index] = pool.written
        else:
            with torch.no_grad():
                flow = self._model(x.to(self._model.dtype), t, text, kv, self._positions(spec)).float()
        sigma = self._table.at(t).sigmas[:, None, :, None, None]
        x0 = self._with_image(spec, clean_from_flow(x, flow, sigma))
        return GradedCall(spec, x, t, flow, x0)

    def _graded_flow(self, spec: BlockSpec, x: Tensor, t: Tensor, kv: BlockKVCache) -> Tensor:
        """The flow with a gradient for every weight, those of the K/V of the prompt too."""
        embeddings = self._prompts.block(spec.index).to(self._model.device, self._model.dtype)
        text = PromptKV(self._model.text_kv(embeddings), self._attention)
        # The pool of `kv` reads copies that stay as they are, so that a layer may run again in the backward pass.
        run_layer = recompute_layer if self._settings.checkpointing else call_layer
        return self._model(x.to(self._model.dtype), t, text, kv, self._positions(spec), run_layer=run_layer).float()

    def _clean_pass(self, spec: BlockSpec, x0: Tensor, noise: Tensor) -> None:
        """Writes the K/V of the block, with the smallest noise of the table, as LongLive 2.0 trains."""
        t = torch.zeros(self._shape.batch, spec.frames, device=x0.device)
        sigma = self._table.at(t).sigmas[:, None, :, None, None]
        x = self._with_image(spec, add_noise(x0, noise.to(x0), sigma))
        self._cache.recache_at_cut(spec)
        (text, kv), *_ = self._cache.calls(spec, clean=True)
        self._model.write_kv(x.to(self._model.dtype), t, text, kv, self._positions(spec))

    def _copy_past(self, kv: BlockKVCache) -> None:
        """Copies the K/V of earlier blocks that have no copy yet, and forgets the blocks that have left the window."""
        new = {slot: block for slot, block in enumerate(kv.blocks) if slot != kv.slot and block not in self._past}
        copies: dict[int, list[KeyValue]] = {block: [] for block in new.values()}
        for layer in range(kv.pool.shape.layers if new else 0):
            # A quantised pool reads every slot but that of its new block, which is the one of this call.
            kv.pool.new_block(layer, kv.slot)
            stored = kv.pool.read(layer, len(kv.blocks), self._model.dtype)
            for slot, block in new.items():
                view = kv.pool.shape.slot_view(stored, slot)
                copies[block].append(KeyValue(view.k.clone(), view.v.clone()))
        for block, layers in copies.items():
            self._past[block] = self._with_gradient(tuple(layers), self._graded.pop(block, None))
        self._past = {block: layers for block, layers in self._past.items() if block in kv.blocks}

    def _with_gradient(self, copies: LayerKV, graded: LayerKV | None) -> LayerKV:
        """The copies, whose gradient goes to the K/V of the block's graded call, if there are any."""
        if graded is None:
            return copies
        with torch.enable_grad():
            return tuple(
                KeyValue(straight_through(copy.k, own.k), straight_through(copy.v, own.v))
                for copy, own in zip(copies, graded, strict=True)
            )

    def _with_image(self, spec: BlockSpec, x: Tensor) -> Tensor:
        """x `[B, C, F, H, W]` of a block, with the image in its first frames if it is the first block."""
        return x if self._image is None or spec.index else with_image(x, self._image)

    def _timesteps(self, spec: BlockSpec, t: float) -> Tensor:
        """`[B, F]` filled with t, and with 0 for the frames of the image."""
        timesteps = torch.full((self._shape.batch, spec.frames), float(t), device=self._model.device)
        if self._image is not None and not spec.index:
            timesteps[:, : self._image.shape[2]] = 0
        return timesteps

    def _positions(self, spec: BlockSpec) -> Tensor:
        return self._cache.positions(spec, spec.shot)


def with_image(x: Tensor, image: Tensor) -> Tensor:
    """x `[B, C, F, H, W]` with its first frames replaced by those of `image`, `[B, C, 0 … F, H, W]`."""
    return torch.cat((image.to(x), x[:, :, image.shape[2] :]), dim=2)
