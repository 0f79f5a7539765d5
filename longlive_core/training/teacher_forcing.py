"""Teacher forcing: every block of a film in one pass, noisy targets over a clean history.

Nothing here masks. A block's tokens may see whole blocks only, so each block is one dense attention over exactly the
keys it is allowed, and several noisy copies of a film share one stream of clean keys:

    stream      block 0    block 1      block 2            block 1 of any stream sees
    clean       c0         c1           (not needed)       c0 and itself
    noisy 0     x0         x1           x2
    noisy 1     y0         y1           y2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import CausalWan, KeyValue, Projected, Rope
from ..model.attention import Attention, torch_attention

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
    attention: Attention = torch_attention,
) -> Tensor:
    """Flow of M noisy copies, each block with the clean blocks before it as its memory.

    clean `[B, C, F, H, W]`; noisy `[B, M, C, F, H, W]`; t `[B, M, F]`; text `[P, L, text_dim]`, the distinct prompts;
    prompts `[B, F / block_frames]`, the row of `text` for each block; positions `[F]` or `[B, F]`, RoPE times of the
    frames in latent frames. history: the earlier blocks that each block sees, all of them by default.
    Returns `[B, M, C, F, H, W]`. Clean frames are shown at t = 0. Raises ValueError for frames that are not whole
    blocks and for a history that looks ahead.
    """
    copies, frames = noisy.shape[1], clean.shape[2]
    blocks = _whole_blocks(frames, block_frames)
    layout = _Layout(blocks, blocks - 1, copies, _checked(history, blocks))
    kept = frames - block_frames  # nothing comes after the last block, so its clean half would only cost time
    x = torch.cat((clean[:, :, :kept], noisy.transpose(1, 2).flatten(2, 3)), dim=2)
    times = torch.cat((t.new_zeros(t.shape[0], kept), t.flatten(1)), dim=1)
    place = positions.expand(clean.shape[0], frames)
    places = torch.cat((place[:, :kept], place.repeat(1, copies)), dim=1)
    flow = _forward(model, layout, x, times, text, prompts, places, attention)
    return flow[:, :, kept:].unflatten(2, (copies, frames)).transpose(1, 2)


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
    attention: Attention = torch_attention,
) -> Tensor:
    """Flow of noisy frames that see the noisy blocks before them: block-causal diffusion without a clean half.

    noisy `[B, C, F, H, W]`; t `[B, F]`; the rest as in `teacher_forced_flow`. Returns `[B, C, F, H, W]`.
    """
    blocks = _whole_blocks(noisy.shape[2], block_frames)
    layout = _Layout(blocks, blocks, 0, _checked(history, blocks))
    return _forward(model, layout, noisy, t, text, prompts, positions, attention)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Order of blocks in a sequence: `clean` blocks of the shared stream, then `copies` times all `blocks`."""

    blocks: int
    clean: int
    copies: int
    history: tuple[tuple[int, ...], ...]

    @property
    def segments(self) -> int:
        return self.clean + self.copies * self.blocks

    def streams(self, block: int) -> list[int]:
        """Segments that hold this block, the clean one first where there is one."""
        first = [block] if block < self.clean else []
        return first + [self.clean + copy * self.blocks + block for copy in range(self.copies)]

    def restore(self, outputs: list[tuple[Tensor, ...]]) -> Tensor:
        """Outputs per block, in the order of `streams`, back in sequence order along dimension 1."""
        placed = {
            segment: value
            for block, values in enumerate(outputs)
            for segment, value in zip(self.streams(block), values, strict=True)
        }
        return torch.cat([placed[segment] for segment in range(self.segments)], dim=1)


@dataclass(frozen=True, slots=True)
class _BlockCausal:
    """Self-attention of all blocks of a film at once, each over the clean blocks before it and itself."""

    layout: _Layout
    attention: Attention

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        del layer
        # One unbind instead of many slices: the gradient of each slice would be a tensor of the whole sequence.
        queries, keys, values = (_segments(x, self.layout) for x in (q.rotated(rope), k.rotated(rope), v))
        outputs: list[tuple[Tensor, ...]] = []
        for block in range(self.layout.blocks):
            rows = self.layout.streams(block)
            out = self.attention(
                torch.cat([queries[row] for row in rows]),
                self._visible(keys, block, rows),
                self._visible(values, block, rows),
            )
            outputs.append(out.chunk(len(rows)))
        return self.layout.restore(outputs)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        raise NotImplementedError("teacher forcing keeps nothing between passes; call the model, not `write_kv`")

    def _visible(self, segments: tuple[Tensor, ...], block: int, rows: list[int]) -> Tensor:
        past = [segments[earlier].repeat(len(rows), 1, 1, 1) for earlier in self.layout.history[block]]
        return torch.cat((*past, torch.cat([segments[row] for row in rows])), dim=1)


@dataclass(frozen=True, slots=True)
class _BlockText:
    """Cross-attention with one prompt per block; all streams of a block share its keys."""

    layout: _Layout
    keys: tuple[KeyValue, ...]
    prompts: Tensor
    attention: Attention

    def attend(self, layer: int, q: Tensor) -> Tensor:
        queries = _segments(q, self.layout)
        k, v = self.keys[layer]
        outputs: list[tuple[Tensor, ...]] = []
        for block in range(self.layout.blocks):
            rows = self.layout.streams(block)
            prompt = self.prompts[:, block]
            out = self.attention(torch.cat([queries[row] for row in rows], dim=1), k[prompt], v[prompt])
            outputs.append(out.chunk(len(rows), dim=1))
        return self.layout.restore(outputs)


def _forward(
    model: CausalWan,
    layout: _Layout,
    x: Tensor,
    t: Tensor,
    text: Tensor,
    prompts: Tensor,
    positions: Tensor,
    attention: Attention,
) -> Tensor:
    if prompts.shape != (x.shape[0], layout.blocks):
        raise ValueError(
            f"prompts {tuple(prompts.shape)} must name one text row for each of {x.shape[0]} films x "
            f"{layout.blocks} blocks"
        )
    words = _BlockText(layout, model.text_kv(text), prompts, attention)
    return model(x, t, words, _BlockCausal(layout, attention), positions)


def _segments(x: Tensor, layout: _Layout) -> tuple[Tensor, ...]:
    return x.unflatten(1, (layout.segments, -1)).unbind(1)


def _whole_blocks(frames: int, block_frames: int) -> int:
    if frames == 0 or frames % block_frames:
        raise ValueError(f"{frames} latent frames are not whole blocks of {block_frames}; trim the film")
    return frames // block_frames


def _checked(history: History | None, blocks: int) -> tuple[tuple[int, ...], ...]:
    if history is None:
        return tuple(tuple(range(block)) for block in range(blocks))
    if len(history) != blocks:
        raise ValueError(f"history names {len(history)} blocks, the film has {blocks}")
    for block, seen in enumerate(history):
        if any(not 0 <= earlier < block for earlier in seen):
            raise ValueError(f"history of block {block} is {list(seen)}; a block sees earlier blocks only")
    return tuple(tuple(seen) for seen in history)
