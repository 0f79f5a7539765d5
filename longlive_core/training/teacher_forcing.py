"""Teacher forcing: flows of all blocks of a film in one pass, each noisy block after a clean history.

There is no attention mask. A block attends to whole blocks only, so each block takes one dense attention over the keys
that it may attend to. Several noisy copies of a film share the keys of the clean blocks:

    stream      block 0    block 1      block 2            block 1 of each stream attends to
    clean       c0         c1           (not needed)       c0 and itself
    noisy 0     x0         x1           x2
    noisy 1     y0         y1           y2
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..memory import MemoryConfig
from ..memory.formats import as_stored
from ..model import CausalWan, KeyValue, KVCache, Projected, Rope, TextKVCache
from ..model.attention import Attention, torch_attention
from ..model.transformer import call_layer
from ..parallel import ALONE, Ranks, heads_to_tokens, tokens_to_heads
from .graded_pool import straight_through
from .segments import History, SegmentOrder


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
    ranks: Ranks = ALONE,
    token_ranks: Ranks = ALONE,
) -> Tensor:
    """Predicts the flow of M noisy copies of a film. Each block attends to itself and to earlier clean blocks.

    clean: latents `[B, C, F, H, W]`, passed at `clean_t`. noisy: `[B, M, C, F, H, W]`. t: timesteps `[B, M, F]`.
    text: embeddings of the distinct prompts, `[P, L, text_dim]`. prompts: row of `text` for each block,
    `[B, F / block_frames]`. positions: RoPE positions in latent frames, `[F]` or `[B, F]`. history: indices of the
    earlier blocks that each block attends to; all of them by default. clean_t: timesteps of the clean latents,
    `[B, F]`; 0 by default. kv_format: round the K/V of earlier blocks as a KV cache of this format does when it serves;
    the gradient passes straight through. By default they are exact. checkpointing: keep only the inputs of each
    transformer block for the backward pass, and compute the rest again there. It saves memory, and changes neither the
    flow nor a gradient. ranks: processes that share the film, each with an equal share of its blocks; F and all tensors
    are then those of the own share, `history` is that of the whole film, and so are the positions' numbers.
    token_ranks: processes that share the tokens of every latent frame instead; all have the whole film, and get the
    whole flow, for a loss that each of them computes.

    Returns `[B, M, C, F, H, W]`. Raises ValueError if F is not a multiple of `block_frames`, if `prompts` has another
    shape, if `history` contains a later block, and for an unknown `kv_format`, or one that several ranks cannot use.
    """
    copies, frames = noisy.shape[1], clean.shape[2]
    blocks = _block_count(frames, block_frames)
    if max(ranks.size, token_ranks.size) > 1 and kv_format is not None:
        raise ValueError(
            f"K/V rounded to {kv_format} would be scaled by each rank's heads alone; train with one rank, or without "
            "a format"
        )
    # No block attends to the last clean block, so it is left out; on several ranks it keeps their work equal.
    history_frames = frames - block_frames if ranks.size == 1 else frames
    clean_blocks = history_frames // block_frames
    own = SegmentOrder.of(blocks, clean_blocks, copies, None)
    order = SegmentOrder.of(blocks * ranks.size, clean_blocks * ranks.size, copies, history, ranks.size)
    x = torch.cat((clean[:, :, :history_frames], noisy.transpose(1, 2).flatten(2, 3)), dim=2)
    clean_t = t.new_zeros(t.shape[0], frames) if clean_t is None else clean_t.to(t)
    times = torch.cat((clean_t[:, :history_frames], t.flatten(1)), dim=1)
    positions = positions.expand(clean.shape[0], frames)
    positions = torch.cat((positions[:, :history_frames], positions.repeat(1, copies)), dim=1)
    kv = _BlockCausal(order, attention, kv_format, ranks)
    flow = _forward(model, own, kv, x, times, text, prompts, positions, attention, checkpointing, token_ranks)
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
    token_ranks: Ranks = ALONE,
) -> Tensor:
    """Predicts the flow of a noisy film. Each block attends to itself and to earlier noisy blocks.

    noisy: `[B, C, F, H, W]`. t: timesteps `[B, F]`. The other arguments and the errors are those of
    `teacher_forced_flow`. Returns `[B, C, F, H, W]`.
    """
    blocks = _block_count(noisy.shape[2], block_frames)
    order = SegmentOrder.of(blocks, blocks, 0, history)
    kv = _BlockCausal(order, attention, None, ALONE)
    return _forward(model, order, kv, noisy, t, text, prompts, positions, attention, checkpointing, token_ranks)


@dataclass(frozen=True, slots=True)
class _BlockCausal:
    """KV cache of one pass: all blocks attend at once, each to its history and to itself.

    Several ranks exchange their tokens, rotated by their own positions, for all tokens of some heads, and back.
    """

    order: SegmentOrder
    attention: Attention
    kv_format: str | None
    ranks: Ranks

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        """See `KVCache.attend`."""
        del layer
        tokens = v.shape[1] * self.ranks.size
        # One unbind instead of many slices, because the gradient of a slice is a tensor as large as the whole sequence.
        queries, keys, values = (
            self.order.split(tokens_to_heads(x, self.ranks, tokens)) for x in (q.rotated(rope), k.rotated(rope), v)
        )
        past_keys, past_values = self._stored(keys, values)
        outputs: list[tuple[Tensor, ...]] = []
        for block in range(self.order.blocks):
            rows = self.order.segments_of(block)
            out = self.attention(
                torch.cat([queries[row] for row in rows]),
                self._visible(past_keys, keys, block, rows),
                self._visible(past_values, values, block, rows),
            )
            outputs.append(out.chunk(len(rows)))
        return heads_to_tokens(self.order.join(outputs), self.ranks, q.heads)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """Raises NotImplementedError, because there is no later pass that could read the K/V."""
        raise NotImplementedError("teacher forcing stores no K/V between passes: call the model instead of `write_kv`")

    def _stored(
        self, keys: tuple[Tensor, ...], values: tuple[Tensor, ...]
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """The K/V of the clean blocks, by block, as the cache returns them to later blocks."""
        clean = self.order.clean_segments()
        pairs = {block: KeyValue(keys[segment], values[segment]) for block, segment in clean.items()}
        if self.kv_format is not None:
            stored = {block: as_stored(self.kv_format, pair, MemoryConfig().smoothing) for block, pair in pairs.items()}
            pairs = {
                block: KeyValue(straight_through(stored[block].k, pair.k), straight_through(stored[block].v, pair.v))
                for block, pair in pairs.items()
            }
        return {block: pair.k for block, pair in pairs.items()}, {block: pair.v for block, pair in pairs.items()}

    def _visible(self, past: dict[int, Tensor], segments: tuple[Tensor, ...], block: int, rows: list[int]) -> Tensor:
        history = [past[earlier].repeat(len(rows), 1, 1, 1) for earlier in self.order.history[block]]
        return torch.cat((*history, torch.cat([segments[row] for row in rows])), dim=1)


@dataclass(frozen=True, slots=True)
class _BlockText:
    """Text of one pass: cross-attention with one prompt per block; all segments of a block share its keys.

    A layer computes its K/V when it runs, so that a layer that is computed again in the backward pass keeps none.
    """

    order: SegmentOrder
    model: CausalWan
    context: Tensor
    prompts: Tensor
    attention: Attention

    def attend(self, layer: int, q: Tensor) -> Tensor:
        """See `TextKVCache.attend`."""
        queries = self.order.split(q)
        k, v = self.model.layer_text_kv(layer, self.context)
        outputs: list[tuple[Tensor, ...]] = []
        for block in range(self.order.blocks):
            rows = self.order.segments_of(block)
            prompt = self.prompts[:, block]
            out = self.attention(torch.cat([queries[row] for row in rows], dim=1), k[prompt], v[prompt])
            outputs.append(out.chunk(len(rows), dim=1))
        return self.order.join(outputs)


def _forward(
    model: CausalWan,
    own: SegmentOrder,
    kv: _BlockCausal,
    x: Tensor,
    t: Tensor,
    text: Tensor,
    prompts: Tensor,
    positions: Tensor,
    attention: Attention,
    checkpointing: bool,
    token_ranks: Ranks,
) -> Tensor:
    """The flow of all segments of this rank, whose order is `own`."""
    if prompts.shape != (x.shape[0], own.blocks):
        raise ValueError(
            f"prompts of shape {tuple(prompts.shape)} must have the shape {(x.shape[0], own.blocks)}: "
            "a row of `text` for each film and block"
        )
    text_kv = _BlockText(own, model, model.embed_text(text), prompts, attention)
    run_layer = recompute_layer if checkpointing else call_layer
    return model(x, t, text_kv, kv, positions, run_layer=run_layer, ranks=token_ranks)


def recompute_layer(layer: nn.Module, x: Tensor, e: Tensor, text: TextKVCache, kv: KVCache, rope: Rope) -> Tensor:
    """Runs a layer and keeps only its inputs for the backward pass. Caches must not change between the two passes."""
    return checkpoint(layer, x, e, text, kv, rope, use_reentrant=False, preserve_rng_state=False)


def _block_count(frames: int, block_frames: int) -> int:
    if frames == 0 or frames % block_frames:
        raise ValueError(f"{frames} latent frames are not whole blocks of {block_frames}; trim the film")
    return frames // block_frames
