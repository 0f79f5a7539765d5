"""Layers of the Wan2.2 VAE. Activations are channels-last: [B, T, H, W, C].

Topology and shortcuts: Wan2.2 (arXiv 2503.20314) with the down and up shortcuts of DC-AE (arXiv 2410.10733).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...kernels import rms_silu_pad
from .convolution import convolution

State = tuple[Tensor, ...]
"""Past input frames of the temporal layers, `[B, T, H, W, C]` each, in the order in which the layers run."""


class ConvCache:
    """The state of the temporal layers during one chunk: reads that of the previous chunk and makes the next one of it.

    Every temporal layer calls `past` and `store` once per chunk, always in the same order, so entries need no names.
    The next state has the memory of the previous one, except in training: at 704x1280 a state takes 3.2 GB.
    first: whether this is the first chunk of a film.
    """

    def __init__(self, state: State | None) -> None:
        self.first = state is None
        self._past = iter(state or ())
        self._read: Tensor | None = None
        self._next: list[Tensor] = []

    def past(self) -> Tensor | None:
        """The frames `[B, T, H, W, C]` that this layer stored in the previous chunk; None in the first chunk."""
        self._read = None if self.first else next(self._past)
        return self._read

    def store(self, frames: Tensor) -> None:
        """Stores frames `[B, T, H, W, C]` for this layer's `past` in the next chunk, over those of this chunk."""
        own, self._read = self._read, None
        if own is not None and own.shape == frames.shape and _may_change(own, frames):
            self._next.append(own.copy_(frames))
        else:
            # Cloned, because a view would keep the whole activation in memory.
            self._next.append(frames.clone())

    def state(self) -> State:
        """The state for the next chunk."""
        return tuple(self._next)


class CausalConv3d(nn.Module):
    """3-D convolution that is causal in time, `[B, T, H, W, C_in]` → `[B, T, H, W, C_out]`.

        0 0 | x0 x1 x2 x3        the first chunk is padded with zeros on the left,
      x2 x3 | x4 x5              a later chunk with the last two frames of the previous one

    On a CPU the three temporal taps are stacked on channels and run as one channels-last conv2d, which is five times
    faster than conv3d and equal to it within rounding.
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
            cache.store(x[:, -history:])
        return self.convolve(x)

    def convolve(self, x: Tensor, stride: int = 1, bias: Tensor | None = None) -> Tensor:
        """Convolves x `[B, T, H, W, C_in]`, past frames included: valid in time with `stride`, same in space.

        bias: in place of the layer's own.
        """
        taps, height, width = self.kernel
        bias = self.bias if bias is None else bias
        if x.is_cuda:
            pad = (0, height // 2, width // 2)
            y = convolution(x.permute(0, 4, 1, 2, 3), self.weight, bias, (stride, 1, 1), pad)
            return y.permute(0, 2, 3, 4, 1)
        if taps > 1:
            x = x.unfold(1, taps, stride).transpose(-1, -2).flatten(-2)
        weight = self.weight.transpose(1, 2).flatten(1, 2)
        if height == width == 1:
            return F.linear(x, weight[:, :, 0, 0], bias)
        return per_frame_conv(x, weight, bias, padding=height // 2)


def per_frame_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """2-D convolution of every frame, `[B, T, H, W, C_in]` → `[B, T, H', W', C_out]`; weight `[C_out, C_in, k, k]`."""
    B = x.shape[0]
    y = convolution(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, (stride, stride), (padding, padding))
    return y.permute(0, 2, 3, 1).unflatten(0, (B, -1))


class FrameConv(nn.Conv2d):
    """3×3 convolution of every frame, `[B, T, H, W, C_in]` → `[B, T, H', W', C_out]`."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(c_in, c_out, 3, stride, padding)
        self.step, self.border = stride, padding

    def forward(self, input: Tensor) -> Tensor:
        return per_frame_conv(input, self.weight, self.bias, self.step, self.border)


class RMSNorm(nn.Module):
    """RMS norm over channels, x / ‖x‖₂ · √C · gamma; `[..., C]` → `[..., C]`."""

    def __init__(self, channels: int, spatial_dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * spatial_dims))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.gamma.flatten(), eps=1e-12)


def normed_conv(norm: nn.Module, conv: nn.Module, x: Tensor, cache: ConvCache, bias: Tensor | None = None) -> Tensor:
    """conv(silu(norm(x))), `[B, T, H, W, C_in]` → `[B, T, H, W, C_out]`. bias: in place of the convolution's own.

    One op normalises, activates and prepends the past frames, which saves two passes over the activations.
    """
    assert isinstance(norm, RMSNorm) and isinstance(conv, CausalConv3d)
    padded = rms_silu_pad(x, norm.gamma.flatten(), cache.past())
    cache.store(padded[:, -2:])
    return conv.convolve(padded, bias=bias)


class ResidualBlock(nn.Module):
    """Norm, SiLU, conv, norm, SiLU, conv, plus the input or its 1×1×1 projection; `[B, T, H, W, C]`."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        # The keys are the checkpoint's indices. 1, 4 and 5 (SiLU, SiLU, dropout) have no weights.
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
        h = normed_conv(norm1, conv1, x, cache)
        if self.shortcut is None:
            return add_to(normed_conv(norm2, conv2, h, cache), x)
        if not _may_change(h, x):
            return normed_conv(norm2, conv2, h, cache) + self.shortcut(x, cache)
        # Both biases go into the convolution, so that the projection and the sum are one op.
        assert isinstance(conv2, CausalConv3d)
        h = normed_conv(norm2, conv2, h, cache, conv2.bias + self.shortcut.bias)
        return add_product(h, x, self.shortcut.weight)


def add_to(h: Tensor, x: Tensor) -> Tensor:
    """h + x, in place where h is a result that nobody else reads; both `[B, T, H, W, C]`."""
    return h.add_(x) if _may_change(h, x) else h + x


def add_product(h: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """h + x Wᵀ by one op, in place; h `[B, T, H, W, N]`, x `[B, T, H, W, C]`, weight `[N, C, 1, 1, 1]`."""
    rows = h.flatten(0, -2)  # a view, except of a convolution that does not give channels last
    rows.addmm_(x.flatten(0, -2), weight.flatten(1).t().to(h.dtype))
    return rows.view(h.shape)


def _may_change(h: Tensor, x: Tensor) -> bool:
    """Whether h may be overwritten with what is made of x: not in training, which needs gradients and mixes dtypes."""
    return h.dtype == x.dtype and not (h.requires_grad or x.requires_grad)


class SpatialAttention(nn.Module):
    """Single-head attention within each frame, x + proj(softmax(q kᵀ / √C) v); `[B, T, H, W, C]`."""

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
        return add_to(F.linear(h, self.proj.weight.view(C, C), self.proj.bias), x)


class Middle(nn.ModuleList):
    """Residual block, attention, residual block; `[B, T, H, W, C]`."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            [ResidualBlock(channels, channels), SpatialAttention(channels), ResidualBlock(channels, channels)]
        )

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        first, attention, last = self
        return last(attention(first(x, cache)), cache)


class Head(nn.ModuleDict):
    """Norm, SiLU, conv; `[B, T, H, W, C_in]` → `[B, T, H, W, C_out]`. The keys are the checkpoint's indices."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__({"0": RMSNorm(c_in), "2": CausalConv3d(c_in, c_out, (3, 3, 3))})

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        norm, conv = self.values()
        return normed_conv(norm, conv, x, cache)


def patchify(video: Tensor, size: int = 2) -> Tensor:
    """`[B, C, F, H, W]` → `[B, F, H/size, W/size, C·size²]`; within a channel, a patch is stored column by column."""
    return rearrange(video, "b c f (h q) (w r) -> b f h w (c r q)", q=size, r=size)


def unpatchify(x: Tensor, size: int = 2) -> Tensor:
    """The inverse of `patchify`: `[B, F, h, w, C·size²]` → `[B, C, F, h·size, w·size]`."""
    return rearrange(x, "b f h w (c r q) -> b c f (h q) (w r)", q=size, r=size)
