"""A decoder of the shapes of taew2_2 with random weights, for films whose real decoder is ComfyUI's.

It streams as `nodes/tiny_decoder.py` does: every memory block keeps its last frame, and each frame is decoded once.
"""

from __future__ import annotations

import torch
from longlive.longlive_core.transfer import to_device
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (256, 128, 64, 64)
GROWS = (1, 2, 2)
"""Frames that each stage makes of one."""

State = tuple[Tensor, ...]
"""The last input frame of every memory block, `[1, C, h, w]`."""


def conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class MemoryBlock(nn.Module):
    """Sees each frame together with the one before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second, self.third = conv(2 * width, width), conv(width, width), conv(width, width)

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        """x, past and the result: `[T, C, h, w]`."""
        y = F.relu(self.second(F.relu(self.first(torch.cat((x, past), 1)))))
        return F.relu(self.third(y) + x)


class TinyDecoder(nn.Module):
    """A `ChunkDecoder`."""

    reach = 8

    def __init__(self, channels: int = 48) -> None:
        super().__init__()
        self.enter, self.leave = conv(channels, WIDTHS[0]), conv(WIDTHS[3], 12)
        self.blocks = nn.ModuleList(MemoryBlock(width) for width in WIDTHS[:3] for _ in range(3))
        self.grow = nn.ModuleList(
            nn.Conv2d(width, width * times, 1, bias=False) for width, times in zip(WIDTHS[:3], GROWS, strict=True)
        )
        self.narrow = nn.ModuleList(conv(WIDTHS[i], WIDTHS[i + 1], bias=False) for i in range(3))

    def to_vae_space(self, latents: Tensor) -> Tensor:
        """See `ChunkDecoder`."""
        weight = self.enter.weight
        return to_device(latents.to(weight.dtype), weight.device)

    def decode_chunk(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `ChunkDecoder`."""
        pieces: list[Tensor] = []
        for latent in latents.split(1, dim=2):
            frames, last = self._decode(latent[:, :, 0], state)
            pieces.append(frames[3:] if state is None else frames)
            state = last
        assert state is not None
        return torch.cat(pieces).mul(2).sub(1).transpose(0, 1)[None], state

    def _decode(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """A latent frame `[1, C, h, w]` → (frames `[4, 3, 16 h, 16 w]`, state)."""
        x = x.contiguous(memory_format=torch.channels_last if x.is_cuda else torch.contiguous_format)
        x = F.relu(self.enter(torch.tanh(x / 3) * 3))
        last: list[Tensor] = []
        for stage, (grow, narrow) in enumerate(zip(self.grow, self.narrow, strict=True)):
            for index in range(3 * stage, 3 * stage + 3):
                past = torch.zeros_like(x[:1]) if state is None else state[index]
                last.append(x[-1:].clone())
                x = self.blocks[index](x, torch.cat((past, x[:-1])))
            x = grow(F.interpolate(x, scale_factor=2.0))
            x = narrow(x.reshape(-1, WIDTHS[stage], *x.shape[2:]))
        return F.pixel_shuffle(self.leave(F.relu(x)), 2), tuple(last)
