"""2-bit residuals and q2 slots of the KV cache: eager and Triton are equal, and what is stored is what is read."""

from __future__ import annotations

import math

import pytest
import torch
from longlive.kernels import eager
from longlive.kernels.q2_format import group_of, index_bits, pack_indices, unpack_indices
from torch import Tensor

SLOTS = 3
SHAPES = [(2, 8, 3, 32, 1, 1), (1, 24, 2, 48, 2, 4), (2, 40, 1, 96, 1, 2), (1, 20, 2, 128, 4, 16), (1, 14, 5, 16, 3, 9)]
"""Films, tokens, heads, width, stages and centroids."""


def devices() -> list[str]:
    return ["cuda"] if torch.cuda.is_available() else ["cpu"]


def residual(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Numbers of very different channels, and the spread of each."""
    films, tokens, heads, width = shape
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp(2 * torch.randn(films, 1, heads, width, generator=generator))
    return torch.randn(films, tokens, heads, width, generator=generator) * spread, spread


def store(shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """What slots may hold: any indices, centroids and steps."""
    films, tokens, heads, width, stages, count = shape
    generator = torch.Generator().manual_seed(1)
    codes, scales = eager.quantize_q2(*residual((films * SLOTS, *shape[1:4])))
    indices = torch.randint(count, (films * SLOTS, tokens, stages, heads), generator=generator)
    centroids = torch.randint(-127, 128, (films, SLOTS, stages * count, heads, width), generator=generator)
    channels = torch.rand(films, SLOTS, 1, heads, width, generator=generator) * 20
    steps = torch.rand(films, SLOTS, stages, heads, 1, generator=generator)
    parts = (part.unflatten(0, (films, SLOTS)) for part in (codes, scales, pack_indices(indices, count)))
    return *parts, centroids.to(torch.int8), channels.to(torch.float8_e4m3fn), steps


def test_a_number_is_centroids_and_a_multiple_of_its_scale() -> None:
    """By hand: 10 · 0.5 + (−3) · 0.25 of two centroids, and −1½ · 2 · (4 · 0.25) of the residual, make 1.25."""
    parts = torch.zeros(4, 1, 1, 1, 1, 16)
    codes = torch.full((1, 1, 1, 1, 4), 0b11_11_11_11, dtype=torch.uint8)
    scales = torch.full((1, 1, 1, 1, 1), 2.0).to(torch.float8_e4m3fn)
    indices = pack_indices(torch.tensor([1, 0]).view(1, 1, 2, 1).expand(1, 4, 2, 1)[:, :1].repeat(1, 4, 1, 1), 2)
    centroids = torch.cat([parts[0], parts[1] + 10, parts[2] - 3, parts[3]], 2).to(torch.int8)
    channels = torch.full((1, 1, 1, 1, 16), 4.0).to(torch.float8_e4m3fn)
    steps = torch.tensor([0.5, 0.25]).view(1, 1, 2, 1, 1)
    out = torch.empty(1, 4, 1, 16)
    many = (part.expand(1, 1, 4, 1, part.shape[-1]) for part in (codes, scales))
    eager.read_q2(*many, indices[None], centroids, channels, steps, [0], out)
    assert torch.equal(out, torch.full_like(out, 1.25))


@pytest.mark.parametrize("width", [16, 32, 48, 128])
def test_residuals_are_within_half_a_step_of_their_levels(width: int) -> None:
    """Numbers below two scales are off by half a scale at most; the error of normal ones is a third of their size."""
    x, spread = residual((1, 200, 2, width))
    codes, scales = eager.quantize_q2(x, spread)
    table = torch.tensor([0.5, 1.5, -0.5, -1.5])
    levels = torch.stack([table[(codes >> shift & 3).long()] for shift in range(0, 8, 2)], -1).flatten(-2)
    scale = scales.float().repeat_interleave(group_of(width), -1)
    wanted = x / spread
    inside = wanted.abs() <= 2 * scale
    assert ((levels * scale - wanted).abs() <= 0.5 * scale + 1e-5)[inside].all()
    assert (levels * scale - wanted).norm() < 0.36 * wanted.norm()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 16, 100])
def test_indices_are_unpacked_as_packed(count: int) -> None:
    """They take bits · tokens · stages / 8 bytes of each head; those of a single centroid take none."""
    indices = torch.randint(count, (2, 8, 3, 5))
    packed = pack_indices(indices, count)
    assert packed.shape == (2, 8 * 3 * index_bits(count) // 8, 5, 1) and packed.dtype == torch.uint8
    assert torch.equal(unpack_indices(packed, 8, 3, count), indices)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("device", devices())
def test_both_implementations_quantise_alike(device: str, shape: tuple[int, ...]) -> None:
    """Codes and scales are equal to the bit, for heads that fill no power of two and rows that fill no program."""
    triton = pytest.importorskip("longlive.kernels.triton")
    x, spread = residual(shape[:4])
    x[:, 1] = 0
    expected = eager.quantize_q2(x, spread)
    for got, wanted in zip(triton.quantize_q2(x.to(device), spread.to(device)), expected, strict=True):
        assert torch.equal(got.cpu().view(torch.uint8), wanted.view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("device", devices())
def test_both_implementations_read_alike(device: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Listed slots are equal to the bit, also in a part of a longer buffer, and other tokens stay as they are."""
    triton = pytest.importorskip("longlive.kernels.triton")
    films, tokens, heads, width = shape[:4]
    parts = [part.to(device) for part in store(shape)]
    wanted = torch.full((films, SLOTS * tokens + 7, heads, width), math.nan, dtype=dtype)
    got = wanted.to(device)
    eager.read_q2(*(part.cpu() for part in parts), [2, 0], wanted[:, : SLOTS * tokens])
    triton.read_q2(*parts, [0, 2], got[:, : SLOTS * tokens])
    assert torch.equal(got.cpu().nan_to_num(1e9), wanted.nan_to_num(1e9))
    rows = wanted[:, : SLOTS * tokens].unflatten(1, (SLOTS, tokens))
    assert rows[:, 1].isnan().all() and wanted[:, SLOTS * tokens :].isnan().all() and not rows[:, [0, 2]].isnan().any()
