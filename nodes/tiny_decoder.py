"""A tiny decoder of the host that decodes a film chunk by chunk: it keeps what its layers remember.

Each `MemBlock` sees a frame and the frame before it. The host's `decode` begins with no memory, so a decoder that uses
it must decode earlier latent frames again. Here the last frame of every block is the state, and each latent frame is
decoded once: 52 convolutions of a frame, in 35 calls.
"""

from __future__ import annotations

import torch
from comfy.taesd.taehv import TAEHV, MemBlock, TGrow
from einops import rearrange
from torch import Tensor, nn

TinyState = tuple[Tensor, ...]
"""The last input frame of every `MemBlock`, `[1, C, h, w]`, in the order in which they run."""

# The most earlier latent frames that a frame depends on: six blocks look back one latent frame, three half of one.
TINY_REACH = 8


def decode_tiny(model: TAEHV, latents: Tensor, state: TinyState | None) -> tuple[Tensor, TinyState]:
    """Decodes the next latents `[1, C, t, h, w]`, t ≥ 1 → (video `[1, 3, T, H, W]` in [−1, 1], state).

    T is 4 t, and 3 less in the first chunk of a film. Latent frames pass one by one, so that the pixels do not depend
    on the size of the chunks. The video stays on the device of the latents.
    """
    pieces: list[Tensor] = []
    for latent in model.process_in(latents).split(1, dim=2):
        frames, last = _decode_frame(model, latent[:, :, 0], state)
        pieces.append(frames if state is not None else frames[model.frames_to_trim :])
        state = last
    assert state is not None
    return torch.cat(pieces).mul(2).sub(1).transpose(0, 1)[None], state


def _decode_frame(model: TAEHV, x: Tensor, state: TinyState | None) -> tuple[Tensor, TinyState]:
    """Decodes a latent frame `[1, C, h, w]` → (frames `[4, 3, H, W]` in [0, 1], state)."""
    x = x.contiguous(memory_format=torch.channels_last if x.is_cuda else torch.contiguous_format)
    past, last = iter(state or ()), list[Tensor]()
    for layer in model.decoder:
        if isinstance(layer, MemBlock):
            before = torch.zeros_like(x[:1]) if state is None else next(past)
            # Cloned, because a view would keep the whole activation in memory.
            last.append(x[-1:].clone())
            x = layer(x, torch.cat((before, x[:-1])))
        else:
            x = _grow(layer, x) if isinstance(layer, TGrow) else layer(x)
    return nn.functional.pixel_shuffle(x, model.patch_size), tuple(last)


def _grow(layer: TGrow, x: Tensor) -> Tensor:
    """The frames `[T, C, h, w]` after a `TGrow`, `[stride · T, C, h, w]`.

    On CUDA they stay channels-last, which the host's `reshape` would change.
    """
    if layer.stride == 1 or not x.is_cuda:
        return layer(x)
    return rearrange(layer.conv(x), "t (s c) h w -> (t s) h w c", s=layer.stride).permute(0, 3, 1, 2)
