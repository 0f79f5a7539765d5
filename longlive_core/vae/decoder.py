"""Decoder of the Wan2.2 VAE: 16× in space and 4× in time; the first latent frame gives a single video frame."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from ...kernels import upsample_nearest
from .config import VAEConfig
from .layers import CausalConv3d, ConvCache, FrameConv, Head, Middle, ResidualBlock, add_to


def dup_up(x: Tensor, c_out: int, time: int, *, first: bool) -> Tensor:
    """Repeats channels, then depth-to-space: `[B, T, H, W, C]` → `[B, T·time, 2H, 2W, c_out]`.

    first: whether this is the first chunk of a film, which drops its first time − 1 frames, because the first latent
    frame is a single video frame.
    """
    x = x.repeat_interleave(c_out * time * 4 // x.shape[-1], dim=-1)
    x = rearrange(x, "b t h w (c p q r) -> b (t p) (h q) (w r) c", p=time, q=2, r=2)
    return x[:, time - 1 :] if first else x


class Upsample(nn.Module):
    """Upsampling to `[B, T, 2H, 2W, C]` by nearest neighbour and conv2d, or to `[B, 2T, 2H, 2W, C]` if `time`."""

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": FrameConv(channels, channels, padding=1)})
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if time else None

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        if self.time_conv is not None:
            if cache.first:
                # The first latent frame is not doubled, and the second one is convolved with zeros as its past.
                cache.store(x.new_zeros(x.shape[0], 2, *x.shape[2:]))
            else:
                x = rearrange(self.time_conv(x, cache), "b t h w (p c) -> b (t p) h w c", p=2)
        return self.resample["1"](upsample_nearest(x))


class UpStage(nn.Module):
    """Residual blocks, an upsampler and the shortcut `dup_up`; `[B, T, H, W, c_in]` → `[B, T', 2H, 2W, c_out]`.

    space: false in the last stage, which has residual blocks only. time: whether frames are doubled.
    """

    def __init__(self, c_in: int, c_out: int, blocks: int, *, space: bool, time: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [ResidualBlock(c_in if i == 0 else c_out, c_out) for i in range(blocks)]
        if space:
            layers.append(Upsample(c_out, time))
        self.upsamples = nn.ModuleList(layers)
        self.c_out, self.space, self.time = c_out, space, 2 if time else 1

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        h = x
        for layer in self.upsamples:
            h = layer(h, cache)
        return add_to(h, dup_up(x, self.c_out, self.time, first=cache.first)) if self.space else h


class Decoder(nn.Module):
    """`[B, T, h, w, latent_channels]` → patched pixels `[B, T', 8h, 8w, 12]`; the first chunk must have T = 1."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        mult = (config.dim_mult[-1], *reversed(config.dim_mult))
        dims = [config.dec_dim * m for m in mult]
        time = (*reversed(config.temporal_downsample), False)
        last = len(config.dim_mult) - 1
        self.conv1 = CausalConv3d(config.latent_channels, dims[0], (3, 3, 3))
        self.middle = Middle(dims[0])
        self.upsamples = nn.ModuleList(
            UpStage(dims[i], dims[i + 1], config.num_res_blocks + 1, space=i < last, time=time[i])
            for i in range(len(config.dim_mult))
        )
        self.head = Head(dims[-1], 12)

    def forward(self, x: Tensor, cache: ConvCache) -> Tensor:
        x = self.middle(self.conv1(x, cache), cache)
        for stage in self.upsamples:
            x = stage(x, cache)
        return self.head(x, cache)
