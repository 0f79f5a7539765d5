"""Ops between the convolutions of a causal video VAE. Activations are channels-last, `[B, T, H, W, C]`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activation import sigmoid
from .rows import check_shape, launch, load_row, part_indices, round_as, store_as

# Values per program: several pixels if they have few channels, otherwise one.
TILE = 4096
EPS = 1e-12


def rms_silu_pad(x: Tensor, gamma: Tensor, past: Tensor | None) -> Tensor:
    """The two past frames and silu(x / rms(x) · gamma) over channels, concatenated: the input of a causal convolution.

    x `[B, T, H, W, C]`, gamma `[C]`, past `[B, 2, H, W, C]`, or None for zeros at the start of a film; returns
    `[B, T + 2, H, W, C]` in x's dtype. Rounded to x's dtype after gamma and after SiLU.
    """
    batch, frames, height, width, channels = x.shape
    check_shape("gamma", gamma, (channels,))
    if past is not None:
        check_shape("past", past, (batch, 2, height, width, channels))
        past = past.contiguous()
    out = torch.empty((batch, frames + 2, height, width, channels), dtype=x.dtype, device=x.device)
    pixels = out.numel() // channels
    block, tile = _tile(channels)
    launch(
        *(_rms_silu_pad, triton.cdiv(pixels, tile), x.contiguous(), gamma.contiguous(), past, out),
        *(pixels, frames, height * width, channels, EPS),
        TILE=tile,
        BLOCK=block,
    )
    return out


def upsample_nearest(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling, `[B, T, H, W, C]` → `[B, T, 2H, 2W, C]`."""
    batch, frames, height, width, channels = x.shape
    out = torch.empty((batch, frames, 2 * height, 2 * width, channels), dtype=x.dtype, device=x.device)
    pixels = x.numel() // channels
    block, tile = _tile(channels)
    launch(
        *(_upsample_nearest, triton.cdiv(pixels, tile), x.contiguous(), out, pixels, width, channels),
        TILE=tile,
        BLOCK=block,
    )
    return out


def to_uint8(video: Tensor) -> Tensor:
    """(clamp(x, −1, 1) + 1) · 127.5, rounded to nearest, ties to even; `[1, 3, T, H, W]` → `[T, H, W, 3]` uint8.

    Rounded to the video's dtype after the sum and after the product. NaN becomes 0.
    """
    _, colours, frames, height, width = video.shape
    check_shape("video", video, (1, 3, frames, height, width))
    out = torch.empty((frames, height, width, colours), dtype=torch.uint8, device=video.device)
    launch(_to_uint8, triton.cdiv(out.numel(), 1024), video.contiguous(), out, out.numel() // 3, BLOCK=1024)
    return out


def _tile(channels: int) -> tuple[int, int]:
    block = triton.next_power_of_2(channels)
    return block, max(1, TILE // block)


@triton.jit
def _rms_silu_pad(
    x: tl.tensor,
    gamma: tl.tensor,
    past: tl.tensor | None,
    out: tl.tensor,
    pixels: tl.tensor,
    frames: tl.tensor,
    area: tl.tensor,
    channels: tl.tensor,
    eps: tl.tensor,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    pixel, channel, mask = part_indices(pixels, channels, TILE, BLOCK)
    batch, frame, place = pixel // area // (frames + 2), pixel // area % (frames + 2), pixel % area
    fresh = mask & (frame >= 2)
    value = load_row(x, ((batch * frames + frame - 2) * area + place) * channels + channel, fresh)
    value = value * tl.rsqrt(tl.sum(value * value, 1, keep_dims=True) / channels + eps)
    value = round_as(value * load_row(gamma, channel, channel < channels), x)
    value = value * sigmoid(value)
    before = tl.zeros_like(value)
    if past is not None:
        before = load_row(past, ((batch * 2 + frame) * area + place) * channels + channel, mask & (frame < 2))
    value = tl.where(frame < 2, before, value)
    store_as(out + pixel * channels + channel, value, mask)


@triton.jit
def _upsample_nearest(
    x: tl.tensor,
    out: tl.tensor,
    pixels: tl.tensor,
    width: tl.tensor,
    channels: tl.tensor,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    pixel, channel, mask = part_indices(pixels, channels, TILE, BLOCK)
    value = tl.load(x + pixel * channels + channel, mask=mask)
    # With the rows of all frames numbered consecutively, row y becomes rows 2y and 2y + 1 of twice the width.
    upper = out + (pixel // width * 4 * width + pixel % width * 2) * channels + channel
    lower = upper + 2 * width * channels
    tl.store(upper, value, mask=mask)
    tl.store(upper + channels, value, mask=mask)
    tl.store(lower, value, mask=mask)
    tl.store(lower + channels, value, mask=mask)


@triton.jit
def _to_uint8(video: tl.tensor, out: tl.tensor, plane: tl.tensor, BLOCK: tl.constexpr) -> None:
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < plane * 3
    value = load_row(video, offsets % 3 * plane + offsets // 3, mask)
    value = tl.where(value > -1.0, value, -1.0)
    value = round_as(tl.where(value < 1.0, value, 1.0) + 1.0, video)
    value = round_as(value * 127.5, video)
    # The spacing of float32 numbers at 2^23 is 1, so the sum rounds to an integer, ties to even.
    tl.store(out + offsets, (value + 8388608.0 - 8388608.0).to(tl.uint8), mask=mask)
