"""Encoder of the Wan2.2 VAE: 16× in space and 4× in time; the first video frame gives a latent frame by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import VAEConfig
from .layers import CausalConv3d, ConvCache, FrameConv, Head, Middle, ResidualBlock, add_to


def avg_down(x: Tensor, c_out: int, time: int, space: int) -> Tensor:
    """Space-to-depth, then the mean over groups of channels.

    `[B, T, H, W, C]` → `[B, T/time, H/space, W/space, c_out]`. T is zero-padded at the front to a multiple of `time`.
    """
    x = F.pad(x, (0, 0) * 3 + (-x.shape[1] % time, 0))
    x = rearrange(x, "b (t p) (h q) (w r) c -> b t h w (c p q r)", p=time, q=space, r=space)
    return x.unflatten(-1, (c_out, -1)).mean(-1)


class Downsample(nn.Module):
    """Strided conv2d, `[B, T, H, W, C]` → `[B, T, H/2, W/2, C]`; if `time`, then a stride-2 convolution in time, T/2.

    The first chunk, a single frame, is not convolved in time.
    """

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": FrameConv(channels, channels, stride=2)})
        self.time_conv = CausalConv3d(channels, channels, (3, 1, 1)) if time else None

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        x = self.resample["1"](F.pad(x, (0, 0, 0, 1, 0, 1)))
        if self.time_conv is None:
            return x
        past = cache.past()
        padded = x if past is None else torch.cat([past, x], dim=1)
        cache.store(x[:, -1:])
        return x if past is None else self.time_conv.convolve(padded, stride=2)


class DownStage(nn.Module):
    """Residual blocks, a downsampler and the shortcut `avg_down`; `[B, T, H, W, c_in]` → `[B, T', H/2, W/2, c_out]`.

    space: false in the last stage, which has no downsampler. time: whether frames are halved.
    """

    def __init__(self, c_in: int, c_out: int, blocks: int, *, space: bool, time: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [ResidualBlock(c_in if i == 0 else c_out, c_out) for i in range(blocks)]
        if space:
            layers.append(Downsample(c_out, time))
        self.downsamples = nn.ModuleList(layers)
        self.c_out, self.space, self.time = c_out, 2 if space else 1, 2 if time else 1

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        shortcut = avg_down(x, self.c_out, self.time, self.space)
        for layer in self.downsamples:
            x = layer(x, cache)
        return add_to(x, shortcut)


class Encoder(nn.Module):
    """Patched pixels `[B, T, H/2, W/2, 12]` → moments `[B, T', H/16, W/16, 2·latent_channels]`.

    T is 1 in the first chunk and a multiple of 4 in later ones.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        dims = [config.dim * m for m in (1, *config.dim_mult)]
        time = (*config.temporal_downsample, False)
        last = len(config.dim_mult) - 1
        self.conv1 = CausalConv3d(12, dims[0], (3, 3, 3))
        self.downsamples = nn.ModuleList(
            DownStage(dims[i], dims[i + 1], config.num_res_blocks, space=i < last, time=time[i])
            for i in range(len(config.dim_mult))
        )
        self.middle = Middle(dims[-1])
        self.head = Head(dims[-1], 2 * config.latent_channels)

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        x = self.conv1(x, cache)
        for stage in self.downsamples:
            x = stage(x, cache)
        return self.head(self.middle(x, cache), cache)
