"""Teacher forcing: flows of all blocks of a film in one pass, each noisy block after a clean history.

There is no attention mask. A block attends to whole blocks only, so each block takes one dense attention over the keys
that it may attend to. Several noisy copies of a film share the keys of the clean blocks:

    stream      block 0    block 1      block 2            block 1 of each stream attends to
    clean       c0         c1           (not needed)       c0 and itself
    noisy 0     x0         x1           x2
    noisy 1     y0         y1           y2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..memory import MemoryConfig, Window
from ..memory.formats import as_stored
from ..model import CausalWan, KeyValue, KVCache, Projected, Rope, TextKVCache
from ..model.attention import Attention, torch_attention
from ..model.transformer import call_layer
from .graded_pool import straight_through

History = Sequence[Sequence[int]]


def teacher_forced_flow(
    model: CausalWan,
    clean: Tensor,
    noisy: Tensor,
    t: Tensor,
    text: Tensor,
    prompts: Tensor,
    positions: Tensor,
    block_frames: int,
    *,
    history: History | None = None,
    clean_t: Tensor | None = None,
    kv_format: str | None = None,
    checkpointing: bool = False,
    attention: Attention = torch_attention,
) -> Tensor:
    """Predicts the flow of M noisy copies of a film. Each block attends to itself and to earlier clean blocks.

    clean: latents `[B, C, F, H, W]`, passed at `clean_t`. noisy: `[B, M, C, F, H, W]`. t: timesteps `[B, M, F]`.
    text: embeddings of the distinct prompts, `[P, L, text_dim]`. prompts: row of `text` for each block,
    `[B, F / block_frames]`. positions: RoPE positions in latent frames, `[F]` or `[B, F]`. history: indices of the
    earlier blocks that each block attends to; all of them by default. clean_t: timesteps of the clean latents,
    `[B, F]`; 0 by default. kv_format: round the K/V of earlier blocks as a KV cache of this format does when it serves;
    the gradient passes straight through. By default they are exact. checkpointing: keep only the inputs of each
    transformer block for the backward pass, and compute the rest again there. It saves memory, and changes neither the
    flow nor a gradient.

    Returns `[B, M, C, F, H, W]`. Raises ValueError if F is not a multiple of `block_frames`, if `prompts` has another
    shape, if `history` contains a later block, and for an unknown `kv_format`.
    """
    copies, frames = noisy.shape[1], clean.shape[2]
    blocks = _block_count(frames, block_frames)
    layout = _Layout(blocks, blocks - 1, copies, _validated(history, blocks))
    history_frames = frames - block_frames  # no block attends to the last clean block, so it is left out
    x = torch.cat((clean[:, :, :history_frames], noisy.transpose(1, 2).flatten(2, 3)), dim=2)
    clean_t = t.new_zeros(t.shape[0], frames) if clean_t is None else clean_t.to(t)
    times = torch.cat((clean_t[:, :history_frames], t.flatten(1)), dim=1)
    positions = positions.expand(clean.shape[0], frames)
    positions = torch.cat((positions[:, :history_frames], positions.repeat(1, copies)), dim=1)
    flow = _forward(model, layout, x, times, text, prompts, positions, attention, checkpointing, kv_format)
    return flow[:, :, history_frames:].unflatten(2, (copies, frames)).transpose(1, 2)


def plain_flow(
    model: CausalWan,
    noisy: Tensor,
    t: Tensor,
    text: Tensor,
    prompts: Tensor,
    positions: Tensor,
    block_frames: int,
    *,
    history: History | None = None,
    checkpointing: bool = False,
    attention: Attention = torch_attention,
) -> Tensor:
    """Predicts the flow of a noisy film. Each block attends to itself and to earlier noisy blocks.

    noisy: `[B, C, F, H, W]`. t: timesteps `[B, F]`. The other arguments and the errors are those of
    `teacher_forced_flow`. Returns `[B, C, F, H, W]`.
    """
    blocks = _block_count(noisy.shape[2], block_frames)
    layout = _Layout(blocks, blocks, 0, _validated(history, blocks))
    return _forward(model, layout, noisy, t, text, prompts, positions, attention, checkpointing)


def window_history(cuts: Sequence[bool], slots: int, *, sinks: int = 1, shot_sink: bool = True) -> History:
    """Returns the `history` of a film whose KV cache has a window: a model then trains on what it is served.

    cuts: whether each block starts a shot after the first. slots, sinks, shot_sink: see `Window`, which raises
    ValueError if they do not fit together.
    """
    window = Window(slots, sinks=sinks, shot_sink=shot_sink)
    history: list[tuple[int, ...]] = []
    for block, cut in enumerate(cuts):
        window.begin(block)
        history.append(window.attended()[:-1])
        window.end(cut=cut)
    return tuple(history)


def attention_mask(frames: int, block_frames: int, tokens: int, ranks: int = 1) -> Tensor:
    """Returns the mask that teacher forcing of a clean and a noisy film amounts to, bool `[queries, keys]`.

    frames: latent frames of each film. tokens: of a latent frame. ranks: among which the latent frames are split evenly
    for balanced sequence parallelism; the tokens are in the order of ranks, each rank's clean frames before its noisy
    ones. Raises ValueError if a rank does not get whole blocks.
    """
    if frames == 0 or frames % (ranks * block_frames):
        raise ValueError(f"{frames} latent frames do not split into whole blocks of {block_frames} on {ranks} ranks")
    blocks = torch.arange(frames).div(block_frames, rounding_mode="floor").reshape(ranks, 1, -1)
    block = blocks.expand(-1, 2, -1).flatten().repeat_interleave(tokens)
    noisy = torch.tensor([False, True])[None, :, None].expand(ranks, -1, frames // ranks).flatten()
    noisy = noisy.repeat_interleave(tokens)
    q, k = block[:, None], block[None]
    return torch.where(noisy, noisy[:, None] & (k == q), torch.where(noisy[:, None], k < q, k <= q))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Order of segments in a sequence: the first `clean` blocks of the clean film, then all blocks of each noisy copy.

    A segment holds the tokens of one block of one stream.
    """

    blocks: int
    clean: int
    copies: int
    history: tuple[tuple[int, ...], ...]

    @property
    def segments(self) -> int:
        """Number of segments."""
        return self.clean + self.copies * self.blocks

    def segments_of(self, block: int) -> list[int]:
        """Indices of the segments that hold a block, the clean one first if there is one."""
        first = [block] if block < self.clean else []
        return first + [self.clean + copy * self.blocks + block for copy in range(self.copies)]

    def join(self, outputs: list[tuple[Tensor, ...]]) -> Tensor:
        """Concatenates the outputs of all blocks along dimension 1, in the order of the sequence.

        outputs: for each block, one tensor `[B, L, …]` for each of `segments_of(block)`.
        """
        placed = {
            segment: value
            for block, values in enumerate(outputs)
            for segment, value in zip(self.segments_of(block), values, strict=True)
        }
        return torch.cat([placed[segment] for segment in range(self.segments)], dim=1)


@dataclass(frozen=True, slots=True)
class _BlockCausal:
    """KV cache of one pass: all blocks attend at once, each to its history and to itself."""

    layout: _Layout
    attention: Attention
    kv_format: str | None

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """See `KVCache.attend`."""
        del layer
        # One unbind instead of many slices, because the gradient of a slice is a tensor as large as the whole sequence.
        queries, keys, values = (_segments(x, self.layout) for x in (q.rotated(rope), k.rotated(rope), v))
        past_keys, past_values = self._stored(keys, values)
        outputs: list[tuple[Tensor, ...]] = []
        for block in range(self.layout.blocks):
            rows = self.layout.segments_of(block)
            out = self.attention(
                torch.cat([queries[row] for row in rows]),
                self._visible(past_keys, keys, block, rows),
                self._visible(past_values, values, block, rows),
            )
            outputs.append(out.chunk(len(rows)))
        return self.layout.join(outputs)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """Raises NotImplementedError, because there is no later pass that could read the K/V."""
        raise NotImplementedError("teacher forcing stores no K/V between passes: call the model instead of `write_kv`")

    def _stored(
        self, keys: tuple[Tensor, ...], values: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The K/V of the segments that later blocks attend to, as the cache returns them."""
        clean = self.layout.clean
        if self.kv_format is None or not clean:
            return keys, values
        pairs = [KeyValue(*pair) for pair in zip(keys[:clean], values[:clean], strict=True)]
        stored = [as_stored(self.kv_format, pair, MemoryConfig().smoothing) for pair in pairs]
        past = ((straight_through(a.k, b.k), straight_through(a.v, b.v)) for a, b in zip(stored, pairs, strict=True))
        past_keys, past_values = zip(*past, strict=True)
        return past_keys, past_values

    def _visible(self, stored: tuple[Tensor, ...], segments: tuple[Tensor, ...], block: int, rows: list[int]) -> Tensor:
        past = [stored[earlier].repeat(len(rows), 1, 1, 1) for earlier in self.layout.history[block]]
        return torch.cat((*past, torch.cat([segments[row] for row in rows])), dim=1)


@dataclass(frozen=True, slots=True)
class _BlockText:
    """Text of one pass: cross-attention with one prompt per block; all segments of a block share its keys.

    A layer computes its K/V when it runs, so that a layer that is computed again in the backward pass keeps none.
    """

    layout: _Layout
    model: CausalWan
    context: Tensor
    prompts: Tensor
    attention: Attention

    def attend(self, layer: int, q: Tensor) -> Tensor:
        """See `TextKVCache.attend`."""
        queries = _segments(q, self.layout)
        k, v = self.model.layer_text_kv(layer, self.context)
        outputs: list[tuple[Tensor, ...]] = []
        for block in range(self.layout.blocks):
            rows = self.layout.segments_of(block)
            prompt = self.prompts[:, block]
            out = self.attention(torch.cat([queries[row] for row in rows], dim=1), k[prompt], v[prompt])
            outputs.append(out.chunk(len(rows), dim=1))
        return self.layout.join(outputs)


def _forward(
    model: CausalWan,
    layout: _Layout,
    x: Tensor,
    t: Tensor,
    text: Tensor,
    prompts: Tensor,
    positions: Tensor,
    attention: Attention,
    checkpointing: bool,
    kv_format: str | None = None,
) -> Tensor:
    if prompts.shape != (x.shape[0], layout.blocks):
        raise ValueError(
            f"prompts of shape {tuple(prompts.shape)} must have the shape {(x.shape[0], layout.blocks)}: "
            "a row of `text` for each film and block"
        )
    text_kv = _BlockText(layout, model, model.embed_text(text), prompts, attention)
    run_layer = recompute_layer if checkpointing else call_layer
    return model(x, t, text_kv, _BlockCausal(layout, attention, kv_format), positions, run_layer=run_layer)


def recompute_layer(layer: nn.Module, x: Tensor, e: Tensor, text: TextKVCache, kv: KVCache, rope: Rope) -> Tensor:
    """Runs a layer and keeps only its inputs for the backward pass. Caches must not change between the two passes."""
    return checkpoint(layer, x, e, text, kv, rope, use_reentrant=False, preserve_rng_state=False)


def _segments(x: Tensor, layout: _Layout) -> tuple[Tensor, ...]:
    return x.unflatten(1, (layout.segments, -1)).unbind(1)


def _block_count(frames: int, block_frames: int) -> int:
    if frames == 0 or frames % block_frames:
        raise ValueError(f"{frames} latent frames are not whole blocks of {block_frames}; trim the film")
    return frames // block_frames


def _validated(history: History | None, blocks: int) -> tuple[tuple[int, ...], ...]:
    if history is None:
        return tuple(tuple(range(block)) for block in range(blocks))
    if len(history) != blocks:
        raise ValueError(f"history has {len(history)} entries, but must have one for each of the {blocks} blocks")
    for block, seen in enumerate(history):
        if any(not 0 <= earlier < block for earlier in seen):
            raise ValueError(f"history of block {block} is {list(seen)}, but a block can attend to earlier blocks only")
    return tuple(tuple(seen) for seen in history)
