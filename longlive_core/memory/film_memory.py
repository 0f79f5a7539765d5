"""The memory of one film: the window, a pool for each branch of guidance, and the prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..model import FlowModel, KeyValue
from ..model.attention import Attention
from ..types import BlockSpec, LatentShape
from .block_memory import BlockKVCache, RelativeRope
from .config import MemoryConfig
from .formats import make_pools
from .pool import Pool, PoolShape, restore_pool
from .prompts import PromptCache, PromptKV, TextEncoder
from .window import Window, WindowState


class CallKV(NamedTuple):
    """What one model call attends: its prompt and the kept frames."""

    text: PromptKV
    kv: BlockKVCache


class FilmKVCache:
    """Begins, shows, and keeps blocks in film order. Its size is fixed at the start, however long the film.

    shape: of one block. blocks: length of the film, which may be shorter than the window. negative: the prompt of the
    second branch, which guidance above 1 needs; None for no second branch. Raises ValueError for a memory that cannot
    hold such blocks.
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
    ) -> None:
        config.check(shape.frames)
        self.config = config
        self._shape = shape
        self._model = model
        self._attention = attention
        self._negative = negative
        self._grid = model.config.grid(shape.height, shape.width)
        slots = config.window // shape.frames
        self.window = Window(slots, sinks=config.sink // shape.frames, shot_sink=config.pins_shots)
        tokens = shape.frames * self._grid[0] * self._grid[1]
        self._room = PoolShape.of(model.config, batch=shape.batch, slots=min(slots, blocks), block_tokens=tokens)
        # Taken when the first block begins: a film that takes over another's memory never has two. What could not be
        # made is said now.
        self._taken: tuple[Pool, ...] | None = None
        self._make(torch.device("meta"))
        branches = 1 if negative is None else 2

        def text_kv(text: Tensor) -> tuple[KeyValue, ...]:
            return model.text_kv(text.to(model.device, model.dtype))

        # Not a method: the memory would hold itself, and its gigabytes until a garbage collection.
        self._prompts = PromptCache(encode, text_kv, attention, keep=1 + branches)

    @property
    def _pools(self) -> tuple[Pool, ...]:
        """One for each branch of guidance."""
        if self._taken is None:
            self._taken = self._make(self._model.device)
        return self._taken

    def _make(self, device: torch.device) -> tuple[Pool, ...]:
        count = 1 if self._negative is None else 2
        form, smoothing = self.config.kv_format, self.config.smoothing
        return make_pools(form, self._room, device, self._model.dtype, smoothing=smoothing, count=count)

    def begin(self, block: BlockSpec) -> None:
        """Makes room for the block; again for a block that was begun and interrupted."""
        self.window.begin(block.index)

    def recache_at_cut(self, block: BlockSpec) -> None:
        """At a cut, with `shot_clean_recache`: drops all but the global sink before the block's clean pass."""
        if block.cut and self.config.shot_clean_recache and self.config.pins_shots:
            self.window.recache()

    def end(self, block: BlockSpec) -> None:
        """The block's clean pass is done: it stays, and after a cut it is the shot's sink."""
        self.window.end(cut=block.cut)

    def calls(self, block: BlockSpec, *, clean: bool) -> Iterator[CallKV]:
        """Memory of each model call of one step: the prompt's, then with guidance the negative prompt's."""
        prompts = [block.prompt] if self._negative is None else [block.prompt, self._negative]
        relative = self._key_rope() if self.config.relative_rope else None
        for prompt, pool in zip(prompts, self._pools, strict=True):
            kv = BlockKVCache(
                pool, self.window.blocks, self.window.slot, self._shape.frames, clean, self._attention, relative
            )
            yield CallKV(self._prompts.keys(prompt), kv)

    def positions(self, block: BlockSpec, cuts: int) -> Tensor:
        """RoPE times of the block's frames, `[F]` float64; cuts: how many there were up to and with this block."""
        frames = range(block.start, block.start + block.frames)
        times = [self.config.position(frame, cuts) for frame in frames]
        return torch.tensor(times, dtype=torch.float64, device=self._model.device)

    def tensors(self) -> tuple[tuple[Tensor, ...], ...]:
        """Copies on the CPU of all that is kept, for each branch."""
        filled = len(self.window.blocks)
        return tuple(
            tuple(tensor.to("cpu", copy=True).contiguous() for tensor in pool.tensors(filled)) for pool in self._pools
        )

    def restore(self, window: WindowState, pools: tuple[tuple[Tensor, ...], ...]) -> None:
        """Takes over what `tensors` and the window's `state` gave. Raises ValueError where they do not fit."""
        if len(pools) != len(self._pools):
            raise ValueError(f"saved memory has {len(pools)} branches of guidance, this run has {len(self._pools)}")
        for pool, tensors in zip(self._pools, pools, strict=True):
            restore_pool(pool, tensors, len(window.blocks))
        self.window.restore(window)

    def continue_from(self, other: FilmKVCache) -> bool:
        """Goes on in the memory of another film of the same model and settings, which is left without one.

        False, and nothing is changed, where it has other room or avoids another prompt.
        """
        if (self._room, self._negative) != (other._room, other._negative):
            return False
        self._taken, other._taken = other._taken, None
        self.window.restore(other.window.state())
        return True

    def _key_rope(self) -> RelativeRope:
        return RelativeRope.of_window(
            self.window.blocks,
            self.window.slot,
            self._shape.frames,
            self._grid,
            self._model.config.head_dim,
            self.config.t_scale,
            self._model.device,
        )
