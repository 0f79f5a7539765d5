"""Layers of the Wan2.2 VAE. Activations are channels-last: [B, T, H, W, C].

Topology and shortcuts: Wan2.2 (arXiv 2503.20314) with the down and up shortcuts of DC-AE (arXiv 2410.10733).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...kernels import rms_silu_pad

State = tuple[Tensor, ...]


class ConvCache:
    """What the causal layers remember between two chunks, in the order in which they run.

    A layer reads its own past once and writes its own future once per chunk, so the state is a plain tuple and
    needs no names. `first` is true for the first chunk of a film.
    """

    def __init__(self, state: State | None) -> None:
        self.first = state is None
        self._past = iter(state or ())
        self._future: list[Tensor] = []

    def past(self) -> Tensor | None:
        """Frames kept by this layer at the end of the previous chunk; None on the first chunk."""
        return None if self.first else next(self._past)

    def keep(self, frames: Tensor) -> None:
        # A view would hold the whole activation of this chunk alive.
        self._future.append(frames.clone())

    def state(self) -> State:
        return tuple(self._future)


class CausalConv3d(nn.Module):
    """3-D convolution that sees only the past: [B, T, H, W, C_in] -> [B, T, H, W, C_out].

        0 0 | x0 x1 x2 x3        the first chunk is padded with zeros on the left,
      x2 x3 | x4 x5              every later one with the last two frames before it

    On a CPU the three time taps are stacked on channels and run as one channels-last conv2d, five times faster
    than conv3d there and equal to it within rounding.
    """

    def __init__(self, c_in: int, c_out: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        conv = nn.Conv3d(c_in, c_out, kernel)
        self.weight, self.bias = conv.weight, nn.Parameter(torch.zeros(c_out))
        self.kernel = kernel

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        history = self.kernel[0] - 1
        if history:
            past = cache.past()
            past = x.new_zeros(x.shape[0], history, *x.shape[2:]) if past is None else past
            x = torch.cat([past, x], dim=1)
            cache.keep(x[:, -history:])
        return self.convolve(x)

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        """Valid in time (with `stride`), same in space; `x` already carries its history."""
        taps, height, width = self.kernel
        if x.is_cuda:
            pad = (0, height // 2, width // 2)
            y = F.conv3d(x.permute(0, 4, 1, 2, 3), self.weight, self.bias, (stride, 1, 1), pad)
            return y.permute(0, 2, 3, 4, 1)
        if taps > 1:
            x = x.unfold(1, taps, stride).transpose(-1, -2).flatten(-2)
        weight = self.weight.transpose(1, 2).flatten(1, 2)
        if height == width == 1:
            return F.linear(x, weight[:, :, 0, 0], self.bias)
        return per_frame_conv(x, weight, self.bias, padding=height // 2)


def per_frame_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """2-D convolution of every frame: [B, T, H, W, C_in] -> [B, T, H', W', C_out]."""
    B = x.shape[0]
    y = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, stride, padding)
    return y.permute(0, 2, 3, 1).unflatten(0, (B, -1))


class FrameConv(nn.Conv2d):
    """A 3x3 convolution of every frame by itself."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(c_in, c_out, 3, stride, padding)
        self.step, self.border = stride, padding

    def forward(self, input: Tensor) -> Tensor:
        return per_frame_conv(input, self.weight, self.bias, self.step, self.border)


class RMSNorm(nn.Module):
    """x / ||x||_2 * sqrt(C) * gamma over channels."""

    def __init__(self, channels: int, spatial_dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.gamma.flatten(), eps=1e-12)


def normed_conv(norm: nn.Module, conv: nn.Module, x: Tensor, cache: ConvCache) -> Tensor:
    """conv(silu(norm(x))), with the padding made by the norm: one pass over what would be three."""
    assert isinstance(norm, RMSNorm) and isinstance(conv, CausalConv3d)
    padded = rms_silu_pad(x, norm.gamma.flatten(), cache.past())
    cache.keep(padded[:, -2:])
    return conv.convolve(padded)


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv, plus the input or its 1x1x1 projection."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        # The indices 0, 2, 3, 6 are those of the checkpoint; 1, 4 and 5 (SiLU, SiLU, dropout) hold no weights.
        self.residual = nn.ModuleDict(
            {
                "0": RMSNorm(c_in),
                "2": CausalConv3d(c_in, c_out, (3, 3, 3)),
                "3": RMSNorm(c_out),
                "6": CausalConv3d(c_out, c_out, (3, 3, 3)),
            }
        )
        self.shortcut = CausalConv3d(c_in, c_out, (1, 1, 1)) if c_in != c_out else None

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        norm1, conv1, norm2, conv2 = self.residual.values()
        h = normed_conv(norm2, conv2, normed_conv(norm1, conv1, x, cache), cache)
        return h + (x if self.shortcut is None else self.shortcut(x, cache))


class SpatialAttention(nn.Module):
    """One-head attention inside each frame: x + proj(softmax(q k^T) v)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RMSNorm(channels, spatial_dims=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, T, H, W, C = x.shape
        qkv = F.linear(self.norm(x), self.to_qkv.weight.view(3 * C, C), self.to_qkv.bias)
        q, k, v = rearrange(qkv, "b t h w (n c) -> n (b t) 1 (h w) c", n=3)
        h = F.scaled_dot_product_attention(q, k, v).reshape(B, T, H, W, C)
        return x + F.linear(h, self.proj.weight.view(C, C), self.proj.bias)


class Middle(nn.ModuleList):
    """Residual, attention, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            [ResidualBlock(channels, channels), SpatialAttention(channels), ResidualBlock(channels, channels)]
        )

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        first, attention, last = self
        return last(attention(first(x, cache)), cache)


class Head(nn.ModuleDict):
    """norm, SiLU, conv; 0 and 2 are the checkpoint's indices."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__({"0": RMSNorm(c_in), "2": CausalConv3d(c_in, c_out, (3, 3, 3))})

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        norm, conv = self.values()
        return normed_conv(norm, conv, x, cache)


def patchify(video: Tensor, size: int = 2) -> Tensor:
    """[B, C, F, H, W] -> [B, F, H/size, W/size, C*size*size], columns before rows inside a patch."""
    return rearrange(video, "b c f (h q) (w r) -> b f h w (c r q)", q=size, r=size)


def unpatchify(x: Tensor, size: int = 2) -> Tensor:
    """Inverse of `patchify`."""
    return rearrange(x, "b f h w (c r q) -> b c f (h q) (w r)", q=size, r=size)
