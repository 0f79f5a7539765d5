"""K/V in 2 bits: the bytes, the centroids of a head, and how near what is read is to what was written."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.memory import MemoryConfig, PoolShape, PoolSpec
from longlive.longlive_core.memory.centroids import fit_centroids
from longlive.longlive_core.memory.formats import pool_bytes
from longlive.longlive_core.memory.q2_store import head_bytes, layout
from longlive.longlive_core.mini import LATENT_SIZE, MINI_DIT
from longlive.longlive_core.model import WAN22_TI2V_5B
from longlive.longlive_core.types import LatentShape
from torch import Tensor

CPU = torch.device("cpu")
SIZES = [(7040, 128, (4, 16)), (3120, 128, (3, 16)), (128, 32, (1, 2)), (2048, 32, (1, 16)), (512, 128, (2, 4))]
"""Tokens of a block, width of a head and its layout: the 5B model at 704x1280 and 480x832, Mini, and others."""


def tokens(films: int = 1, length: int = 400, heads: int = 3, width: int = 32) -> Tensor:
    """Tokens of 40 kinds, in channels of which some are ten times as large as others, on a common offset."""
    generator = torch.Generator().manual_seed(0)
    channels = torch.exp(torch.randn(heads, width, generator=generator))
    kinds = torch.randn(films, 40, heads, width, generator=generator)
    noise = 0.3 * torch.randn(films, length, heads, width, generator=generator)
    return (kinds[:, torch.arange(length) * 7 % 40] + noise + torch.randn(heads, width, generator=generator)) * channels


def stored(x: Tensor) -> Tensor:
    """What a q2 pool returns of a block."""
    films, length, heads, width = x.shape
    shape = PoolShape(layers=1, batch=films, slots=2, block_tokens=length, heads=heads, head_dim=width)
    (pool,) = PoolSpec("q2", shape, torch.float32).make(CPU)
    for part in pool.new_block(0, 0):
        part.copy_(x)
    pool.commit(0, 0, clean=True)
    pool.new_block(0, 1)
    return pool.read(0, 1, torch.float32).v.clone()


@pytest.mark.parametrize(("length", "width", "expected"), SIZES)
def test_sixteen_numbers_take_five_bytes_at_most(length: int, width: int, expected: tuple[int, int]) -> None:
    """What is allocated is what is computed, at most 5/32 of bf16, and no better layout fits."""
    assert layout(length, width) == expected
    shape = PoolShape(layers=1, batch=1, slots=1, block_tokens=length, heads=2, head_dim=width)
    assert pool_bytes("q2", shape) == 2 * 2 * head_bytes(length, width, *expected)
    assert pool_bytes("q2", shape) <= pool_bytes("bf16", shape) * 5 / 32


def test_bytes_of_the_full_model_and_of_mini() -> None:
    """1.59 GB at 704x1280 where NVFP4 takes 2.92 GB, so that 56 frames fit in the memory of 32; Mini: 0.37 MB."""
    latent = LatentShape(1, 48, 8, 44, 80)
    four, two = (MemoryConfig(kv_format=name).bytes(WAN22_TI2V_5B, latent) for name in ("nvfp4", "q2"))
    assert two / 1e9 == pytest.approx(1.589, abs=0.001)
    assert MemoryConfig(window=56, kv_format="q2").bytes(WAN22_TI2V_5B, latent) < four
    mini = MemoryConfig(kv_format="q2").bytes(MINI_DIT, LatentShape(1, 48, 8, *LATENT_SIZE))
    assert mini / 1e6 == pytest.approx(0.365, abs=0.001)


def test_a_head_has_the_same_numbers_in_any_company() -> None:
    """A head of a film alone is stored as it is beside other heads and films, to the bit, so ranks may share heads."""
    x = tokens(films=3, heads=4)
    together = stored(x)
    for film in range(3):
        for head in range(4):
            alone = stored(x[film : film + 1, :, head : head + 1])
            assert torch.equal(together[film : film + 1, :, head : head + 1], alone)


def test_tokens_in_another_dtype_or_order_of_memory_are_the_same_tokens() -> None:
    """Centroids of bf16 numbers are those of the same numbers in float32, wherever they lie in memory."""
    x = tokens().bfloat16()
    wanted = fit_centroids(x.float(), 2, 8)
    spaced = torch.empty(1, 2 * x.shape[1], *x.shape[2:], dtype=x.dtype)[:, ::2].copy_(x)
    got = fit_centroids(spaced, 2, 8)
    for name in ("values", "steps", "indices", "residual"):
        assert torch.equal(getattr(got, name), getattr(wanted, name))


def test_distances_and_sums_are_exact() -> None:
    """float64 finds the same centroids at the widest head: no sum of float32 has been rounded."""
    x = tokens(length=1500, heads=1, width=256)
    x[:, ::3] = x.abs().max()  # the largest whole numbers there are
    single, double = fit_centroids(x, 1, 16), fit_centroids_in_float64(x)
    assert torch.equal(single.values, double)


def fit_centroids_in_float64(x: Tensor) -> Tensor:
    """One stage of 16 centroids, as `fit_centroids` does it."""
    step = x.abs().amax() / torch.tensor(127.0)
    whole = (x / step).round()[0, :, 0].double()
    sample = whole[torch.arange(1024) * 1_000_003 % len(whole)]
    centroids = sample[torch.arange(16) * 64]
    for _ in range(8):
        nearest = (centroids.square().sum(1) - 2 * sample @ centroids.T).argmin(1)
        for index in range(16):
            if (nearest == index).any():
                centroids[index] = sample[nearest == index].mean(0).round()
    return centroids.to(torch.int8)[None, :, None]


@pytest.mark.parametrize(("length", "limit"), [(48, 0.25), (400, 0.19), (4000, 0.13)])
def test_the_error_falls_with_the_centroids_that_a_block_can_pay_for(length: int, limit: float) -> None:
    """Relative L2 of 40 kinds of tokens with noise: a block of many tokens has more centroids than one of few."""
    x = tokens(length=length, width=64)
    assert (stored(x) - x).norm() / x.norm() < limit


def test_a_channel_far_larger_than_others_does_not_drown_them() -> None:
    """With one channel a hundred times as large, the other channels keep an error of a third of their size."""
    x = torch.randn(1, 256, 1, 64, generator=torch.Generator().manual_seed(0))
    x[..., 5] *= 100
    others = [channel for channel in range(64) if channel != 5]
    assert (stored(x) - x)[..., others].norm() < 0.4 * x[..., others].norm()


def test_equal_tokens_and_zeros_are_kept() -> None:
    """A block of one token, repeated, is off by a step of its largest number at most; zeros stay zeros."""
    token = torch.randn(1, 1, 2, 32, generator=torch.Generator().manual_seed(0))
    x = token.expand(1, 64, 2, 32)
    assert (stored(x) - x).abs().amax() <= x.abs().amax() / 127
    assert not stored(torch.zeros(1, 64, 2, 32)).any()


def test_not_a_number_is_not_hidden() -> None:
    """A head with a NaN is read as NaN; other heads are not."""
    x = tokens()
    x[0, 3, 1, 5] = torch.nan
    read = stored(x)
    assert read[:, :, 1].isnan().all() and not read[:, :, [0, 2]].isnan().any()


def test_heads_that_do_not_fit_are_refused() -> None:
    """Heads wider than sums in float32 allow, and of a width that groups do not divide, are refused with a remedy."""
    wide = PoolShape(layers=1, batch=1, slots=1, block_tokens=8, heads=1, head_dim=512)
    with pytest.raises(ValueError, match="kv_format 'q2' holds heads of at most 256 channels, not 512; use nvfp4"):
        PoolSpec("q2", wide, torch.float32).make(CPU)
    odd = PoolShape(layers=1, batch=1, slots=1, block_tokens=8, heads=1, head_dim=24)
    with pytest.raises(ValueError, match="a head width that is a multiple of 16, not 24"):
        PoolSpec("q2", odd, torch.float32).make(CPU)
