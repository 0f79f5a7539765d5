"""Pools in every format: K/V that are written are read back, and other slots do not change."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.memory import KV_FORMATS, MemoryConfig, PoolShape, PoolSpec
from longlive.longlive_core.memory.formats import Pool, pool_bytes, restore_pool, scratch_bytes
from longlive.longlive_core.memory.quantized_pool import Smoothing
from longlive.longlive_core.model import WAN22_TI2V_5B, KeyValue
from longlive.longlive_core.types import LatentShape
from torch import Tensor

SHAPE = PoolShape(layers=2, batch=2, slots=3, block_tokens=8, heads=2, head_dim=32)
CPU = torch.device("cpu")
# Relative L2 error of K/V that were written and read.
CLOSE = {"float32": 0, "bf16": 3e-3, "fp16": 4e-4, "fp8": 0.03, "nvfp4": 0.11, "q2": 0.38}


def make(kv_format: str, smoothing: Smoothing = "none") -> Pool:
    return PoolSpec(kv_format, SHAPE, torch.float32, smoothing).make(CPU)[0]


def block(seed: int) -> KeyValue:
    make = torch.Generator().manual_seed(seed)
    size = (SHAPE.batch, SHAPE.block_tokens, SHAPE.heads, SHAPE.head_dim)
    return KeyValue(torch.randn(size, generator=make), torch.randn(size, generator=make))


def write(pool: Pool, layer: int, slot: int, kv: KeyValue, *, clean: bool = True) -> None:
    new = pool.new_block(layer, slot)
    new.k.copy_(kv.k)
    new.v.copy_(kv.v)
    pool.commit(layer, slot, clean=clean)


def error(value: Tensor, wanted: Tensor) -> float:
    return float((value - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_what_is_written_is_read(kv_format: str) -> None:
    """In two layers and three slots, one overwritten, K/V are read as written, within the format's rounding error."""
    pool = make(kv_format)
    for layer in range(2):
        for slot in (0, 1, 2, 1):
            write(pool, layer, slot, block(10 * layer + slot))
    write(pool, 0, 1, block(99))
    for layer, seeds in enumerate(((0, 99, 2), (10, 11, 12))):
        if layer == 1:  # the new block of another layer: no rows of layer 0 may be left in the scratch
            write(pool, 1, 2, block(12))
        else:
            write(pool, 0, 1, block(99))
        got = pool.read(layer, 3, torch.float32)
        for slot, seed in enumerate(seeds):
            for value, wanted in zip(SHAPE.slot_view(got, slot), block(seed), strict=True):
                assert error(value, wanted) <= CLOSE[kv_format]


@pytest.mark.parametrize("kv_format", ["fp8", "nvfp4", "q2"])
def test_the_new_block_is_read_unquantised(kv_format: str) -> None:
    """A block is rounded only after its clean pass, and a noisy pass stores nothing."""
    pool = make(kv_format)
    write(pool, 0, 0, block(0))
    before = [tensor.clone() for tensor in pool.tensors(3)[: len(pool.tensors(3)) // 2]]
    write(pool, 0, 1, block(1), clean=False)
    got = SHAPE.slot_view(pool.read(0, 2, torch.float32), 1)
    assert torch.equal(got.k, block(1).k) and torch.equal(got.v, block(1).v)
    after = pool.tensors(3)[: len(before)]
    assert all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_a_restored_pool_is_the_same_pool(kv_format: str) -> None:
    """A pool restored from another's tensors gives the same K/V to the bit."""
    pool, other = make(kv_format, "token"), make(kv_format, "token")
    for layer in range(2):
        for slot in range(2):
            write(pool, layer, slot, block(slot))
    restore_pool(other, [tensor.clone() for tensor in pool.tensors(2)], 2)
    for layer in range(2):
        write(pool, layer, 2, block(5), clean=False)
        a = [value.clone() for value in pool.read(layer, 3, torch.float32)]
        write(other, layer, 2, block(5), clean=False)
        assert all(torch.equal(x, y) for x, y in zip(a, other.read(layer, 3, torch.float32), strict=True))


def test_token_smoothing_reduces_the_error_of_keys_with_an_offset() -> None:
    """Keys with a large part in common over tokens have a fifth of the error or less."""
    kv = block(0)
    offset = KeyValue(kv.k + 20 * torch.randn(1, 1, SHAPE.heads, SHAPE.head_dim), kv.v)
    errors = {}
    for smoothing in ("none", "token"):
        pool = make("nvfp4", smoothing)
        write(pool, 0, 0, offset)
        write(pool, 0, 1, kv)
        errors[smoothing] = error(SHAPE.slot_view(pool.read(0, 2, torch.float32), 0).k, offset.k)
    assert errors["token"] < errors["none"] / 5


def test_values_are_stored_without_centring() -> None:
    """Smoothing changes keys only: values with a large part in common are the same to the bit with and without it."""
    kv = block(0)
    offset = KeyValue(kv.k, kv.v + 20)
    values: list[Tensor] = []
    for smoothing in ("none", "token"):
        pool = make("nvfp4", smoothing)
        write(pool, 0, 0, offset)
        write(pool, 0, 1, kv)
        values.append(SHAPE.slot_view(pool.read(0, 2, torch.float32), 0).v.clone())
    assert torch.equal(*values)


def test_reference_smoothing_changes_the_scratch_and_not_the_store() -> None:
    """Attention reads the new block's centred keys, while the stored keys are those without smoothing."""
    plain, reference = make("nvfp4"), make("nvfp4", "reference")
    for pool in (plain, reference):
        write(pool, 0, 0, block(0))
    seen = SHAPE.slot_view(reference.read(0, 1, torch.float32), 0).k
    assert torch.allclose(seen, block(0).k - block(0).k.mean(-1, keepdim=True), atol=1e-6)
    layer = len(plain.tensors(1)) // 2
    for a, b in zip(plain.tensors(1)[:layer], reference.tensors(1)[:layer], strict=True):
        assert torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def test_two_branches_share_one_scratch() -> None:
    """The pools of both branches of guidance have one scratch buffer."""
    one, two = PoolSpec("nvfp4", SHAPE, torch.bfloat16, count=2).make(CPU)
    assert one.new_block(0, 0).k.data_ptr() == two.new_block(0, 0).k.data_ptr()


def test_bytes_of_the_full_model() -> None:
    """The published figures at 704x1280: 10.38 GB in bf16, 2.92 GB in NVFP4."""
    latent = LatentShape(1, 48, 8, 44, 80)
    sizes = {name: MemoryConfig(kv_format=name, smoothing="none").bytes(WAN22_TI2V_5B, latent) for name in KV_FORMATS}
    assert sizes["bf16"] / 1e9 == pytest.approx(10.38, abs=0.01)
    assert sizes["nvfp4"] / 1e9 == pytest.approx(2.92, abs=0.01)
    assert sizes["fp8"] / 1e9 == pytest.approx(5.19 * (1 + 4 / 128), abs=0.01)
    assert MemoryConfig(kv_format="nvfp4").scratch_bytes(WAN22_TI2V_5B, latent) / 1e9 == pytest.approx(0.346, abs=1e-3)
    assert scratch_bytes("bf16", SHAPE, torch.bfloat16) == 0 < pool_bytes("bf16", SHAPE)


def test_unknown_formats_and_odd_heads_are_refused() -> None:
    """A KV format that does not exist, or that cannot hold the head width, is refused with what is valid."""
    with pytest.raises(ValueError, match="kv_format 'int2' is not available; choose one of bf16"):
        make("int2")
    odd = PoolShape(layers=1, batch=1, slots=1, block_tokens=4, heads=1, head_dim=24)
    with pytest.raises(ValueError, match="a head width that is a multiple of 16, not 24"):
        PoolSpec("nvfp4", odd, torch.float32).make(CPU)
