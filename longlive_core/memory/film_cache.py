"""The KV cache of one film: the window, one pool for each branch of guidance, and the K/V of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from ..model import FlowModel, KeyValue
from ..model.attention import Attention
from ..transfer import to_device
from ..types import BlockSpec, LatentShape
from .block_cache import BlockKVCache, RelativeRope
from .config import MemoryConfig
from .formats import ALL, META, Pool, PoolSpec
from .pools import OwnPools, Pools
from .prompts import PromptCache, PromptKV, TextEncoder
from .window import Move, Window, WindowState, copy_of


class CallKV(NamedTuple):
    """K/V for one model call: those of the prompt and those of the latent frames."""

    text: PromptKV
    kv: BlockKVCache


class FilmKVCache:
    """Fixed-size KV cache of a film of any length. For each block in film order: `begin`, `calls`, `end`.

    Before the first block of every shot: `recall`, then `recall_calls` and `entered` for each of `window.entering`.
    shape: of one block. blocks: length of the film; a film shorter than the window gets fewer slots. negative: the
    prompt of the second branch of guidance, or None for one branch. pools: who makes, saves and restores the pools.
    Raises ValueError for settings that do not fit the
    block or the model.
    """

    def __init__(
        self,
        model: FlowModel,
        config: MemoryConfig,
        shape: LatentShape,
        blocks: int,
        encode: TextEncoder,
        attention: Attention,
        *,
        negative: str | None = None,
        pools: Pools | None = None,
    ) -> None:
        self.config = config
        self._access = pools or OwnPools()
        self._shape = shape
        self._model = model
        self._attention = attention
        self._negative = negative
        self._pool_spec = PoolSpec(
            config.kv_format,
            config.pool_shape(model.config, shape, blocks),
            model.dtype,
            config.smoothing,
            count=1 if negative is None else 2,
        )
        slots = config.window // shape.frames
        self.window = Window(slots, sinks=config.sink // shape.frames, shot_sink=config.pins_shots)
        # Allocated when the first block begins, so that a film that continues another never holds two sets of pools.
        self._allocated: tuple[Pool, ...] | None = None
        # On the meta device nothing is allocated, but a format that cannot hold the model's heads is refused now.
        self._pool_spec.make(META)

        # A closure over `model`, not a method: a reference cycle would keep gigabytes until a garbage collection.
        def text_kv(text: Tensor) -> Sequence[KeyValue]:
            return model.text_kv(to_device(text, model.device).to(model.dtype))

        # The prompts of the previous and of the current shot, and the negative prompt.
        self._prompts = PromptCache(encode, text_kv, attention, capacity=2 if negative is None else 3)

    @property
    def _pools(self) -> tuple[Pool, ...]:
        """One pool for each branch of guidance."""
        if self._allocated is None:
            self._allocated = self._access.make(self._pool_spec, self._model.device)
        return self._allocated

    def begin(self, block: BlockSpec) -> None:
        """Assigns a slot to the next block. Does nothing if the block began before and was interrupted."""
        self.window.begin(block.index, alone=block.cut and self.config.independent_shots)

    def skip_to(self, block: BlockSpec) -> bool:
        """Makes a later block the next one if it depends on the global sink only; returns whether it is."""
        return self.config.independent_shots and block.cut and self.window.skip_to(block.index)

    def recall(self, block: BlockSpec) -> None:
        """Makes room for the blocks that the shot recalls, before its first block begins.

        Does nothing if the block began before and was interrupted.
        """
        if self.window.current != block.index:
            self._move(self.window.recall(block.recalled, again=self.config.recalls_anew))

    def entered(self) -> None:
        """Marks the clean pass of the first block of `window.entering` as done."""
        self._move([self.window.entered()])

    def _move(self, moves: Iterable[Move]) -> None:
        for source, target in moves:
            for pool in self._pools if source != target else ():
                self._access.move(pool, source, target)

    def recaches(self, block: BlockSpec) -> bool:
        """Whether all but the global sink are evicted before the clean pass of this block (`shot_clean_recache`)."""
        return block.cut and self.config.shot_clean_recache and self.config.pins_shots

    def recache_at_cut(self, block: BlockSpec) -> None:
        """Evicts what `recaches` says."""
        if self.recaches(block):
            self._move(self.window.recache())

    def end(self, block: BlockSpec) -> None:
        """Marks the block's clean pass as done. A block that is a cut becomes the shot sink."""
        self.window.end(cut=block.cut)

    def calls(self, block: BlockSpec, *, clean: bool, overlap: int = 0) -> Iterator[CallKV]:
        """K/V for each model call of a step: with the block's prompt, then, under guidance, with the negative one.

        clean: whether the step is a clean pass. overlap: the number of frames in front of the block; see `seam`.
        """
        yield from self._calls(block, self.window.blocks, self.window.slot, clean, overlap)

    def recall_calls(self, recalled: BlockSpec) -> Iterator[CallKV]:
        """Like `calls`, for the clean pass of the block that enters next. It attends the global sinks and itself."""
        sinks = self.window.held_sinks
        yield from self._calls(recalled, (*sinks, self._entry(recalled)), len(sinks), True, 0)

    def _entry(self, recalled: BlockSpec) -> int:
        """The number under which the window holds a recalled block: its own, or that of its copy."""
        index = recalled.index
        return index if index in self.window.recalled else copy_of(index)

    def _calls(
        self, block: BlockSpec, blocks: tuple[int, ...], slot: int, clean: bool, overlap: int
    ) -> Iterator[CallKV]:
        """Calls for a block in `slot` that attends `blocks` in the first slots."""
        prompts = [block.prompt] if self._negative is None else [block.prompt, self._negative]
        relative = None
        if self.config.relative_rope:
            relative = RelativeRope.of_blocks(blocks, slot, self._shape, self._model, self.config.t_scale, overlap)
        for prompt, pool in zip(prompts, self._pools, strict=True):
            kv = BlockKVCache(pool, blocks, slot, self._shape.frames, clean, self._attention, relative)
            yield CallKV(self._prompts.kv(prompt), kv)

    def positions(self, block: BlockSpec, cuts: int, overlap: int = 0) -> Tensor:
        """RoPE times of the block's frames, `[overlap + F]` float64.

        cuts: the number of cuts up to and including this block. overlap: the number of frames in front of the block.
        """
        frames = range(block.start - overlap, block.start + block.frames)
        return self.config.positions(frames, cuts, self._model.device)

    def recalled_positions(self, recalled: BlockSpec, cuts: int, block: BlockSpec, cuts_now: int) -> Tensor:
        """Like `positions`, of a block that enters before `block`. cuts, cuts_now: up to the one and the other."""
        if not self.config.recalls_anew and recalled.index >= 0:
            return self.positions(recalled, cuts)
        distance = len(self.window.recalled) - self.window.recalled.index(self._entry(recalled))
        start = block.start - distance * recalled.frames
        return self.config.positions(range(start, start + recalled.frames), cuts_now, self._model.device)

    def tensors(self, films: slice = ALL) -> tuple[tuple[Tensor, ...], ...]:
        """Copies of all occupied slots on the CPU, for each branch of guidance; see `Pool.tensors`.

        films: those of a batch.
        """
        filled = len(self.window.blocks)
        return tuple(self._access.save(pool, filled, films) for pool in self._pools)

    def restore(self, window: WindowState, pools: tuple[tuple[Tensor, ...], ...], films: slice = ALL) -> None:
        """Restores the window's `state` and the copies that `tensors` gave. Raises ValueError if they do not fit."""
        if len(pools) != len(self._pools):
            raise ValueError(
                f"the saved KV cache has {len(pools)} branches of guidance, but this run has {len(self._pools)}"
            )
        for pool, tensors in zip(self._pools, pools, strict=True):
            self._access.restore(pool, tensors, len(window.blocks), films)
        self.window.restore(window)

    def continue_from(self, other: FilmKVCache) -> bool:
        """Takes the pools and the window of another film with the same model and settings, without a copy.

        Returns False and changes nothing if the pools or the negative prompt differ.
        """
        if (self._pool_spec, self._negative) != (other._pool_spec, other._negative):
            return False
        self._allocated, other._allocated = other._allocated, None
        self.window.restore(other.window.state())
        return True
