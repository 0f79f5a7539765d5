"""NVFP4 slots of the KV cache, eager and Triton: only the given slot is written and read."""

from __future__ import annotations

import math
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from longlive.kernels.eager import nvfp4 as eager
from longlive.kernels.nvfp4_format import NVFP4
from torch import Tensor

BATCH, SLOTS, TOKENS, HEADS, CHANNELS = 2, 4, 5, 3, 32
NUMBERS = TOKENS * HEADS * CHANNELS


class Memory(NamedTuple):
    """Every byte of it 0xFF, so NaN, until written."""

    values: Tensor
    scales: Tensor
    amax: Tensor


@pytest.fixture(params=["eager", "triton"])
def kv(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "triton":
        pytest.importorskip("triton")
    return import_module(f"longlive.kernels.{request.param}.kv")


@pytest.fixture
def device(kv: ModuleType) -> str:
    return "cuda" if torch.cuda.is_available() and "triton" in kv.__name__ else "cpu"


@pytest.fixture
def memory(device: str) -> Memory:
    def poison(size: int, dtype: torch.dtype) -> Tensor:
        return torch.full((BATCH, SLOTS, size), 0xFF, dtype=torch.uint8, device=device).view(dtype)

    return Memory(
        poison(NUMBERS // 2, torch.uint8), poison(NUMBERS // 16, torch.float8_e4m3fn), poison(4, torch.float32)[..., 0]
    )


@pytest.fixture
def block(device: str) -> Tensor:
    """A block of tokens as it lies in a longer buffer; the second film is ten times as loud as the first."""
    buffer = torch.randn(BATCH, 2 * TOKENS, HEADS, CHANNELS, generator=torch.Generator().manual_seed(0))
    buffer[1] *= 10
    return buffer.bfloat16().to(device)[:, ::2]


def scratch(device: str, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.full((BATCH, SLOTS * TOKENS, HEADS, CHANNELS), math.nan, dtype=dtype, device=device)


def as_bytes(memory: Memory) -> list[Tensor]:
    return [part.contiguous().view(torch.uint8).clone() for part in memory]


@pytest.mark.parametrize("rule", ["mse", "static_6"])
def test_a_slot_holds_the_codes_of_its_block_as_a_matrix_of_heads(
    kv: ModuleType, memory: Memory, block: Tensor, rule: str
) -> None:
    """A slot holds the NVFP4 codes, scales and amax of its block as one matrix per batch element, to the bit."""
    kv.append_nvfp4(block, *memory, 2, rule)
    for element in range(BATCH):
        expected = eager.quantize_nvfp4(block[element].reshape(-1, CHANNELS).cpu(), rule, swizzled=False)
        assert torch.equal(memory.values[element, 2].cpu(), expected.values.view(-1))
        scales = memory.scales[element, 2].cpu()
        assert torch.equal(scales.view(torch.uint8), expected.scales.view(torch.uint8).view(-1))
        assert memory.amax[element, 2].item() == block[element].abs().max().item() == expected.amax.item()


def test_a_part_of_a_matrix_gets_its_codes_in_the_whole(kv: ModuleType, memory: Memory, block: Tensor) -> None:
    """With the amax of a larger matrix a block has the codes that it has as its part; a smaller amax is ignored."""
    largest = block.abs().amax((1, 2, 3)).float()
    kv.append_nvfp4(block, *memory, 0, least=4 * largest)
    kv.append_nvfp4(block, *memory, 1, least=largest / 4)
    for element in range(BATCH):
        part = block[element].reshape(-1, CHANNELS).cpu()
        whole = torch.cat((part, (4 * largest[element]).cpu().bfloat16().expand(1, CHANNELS)))
        for slot, matrix in enumerate((whole, part)):
            expected = eager.quantize_nvfp4(matrix, swizzled=False)
            assert torch.equal(memory.values[element, slot].cpu(), expected.values[: len(part)].view(-1))
            scales = memory.scales[element, slot].cpu().view(torch.uint8)
            assert torch.equal(scales, expected.scales.view(torch.uint8)[: len(part)].view(-1))


def test_other_slots_are_left_alone(kv: ModuleType, memory: Memory, block: Tensor) -> None:
    """Other slots do not change when a slot is written."""
    kv.append_nvfp4(block, *memory, 1)
    before = as_bytes(memory)
    kv.append_nvfp4(-3 * block, *memory, 2)
    for old, new in zip(before, as_bytes(memory), strict=True):
        old, new = old.view(BATCH, SLOTS, -1), new.view(BATCH, SLOTS, -1)
        assert torch.equal(old[:, [0, 1, 3]], new[:, [0, 1, 3]])
        assert not torch.equal(old[:, 2], new[:, 2])


def test_a_slot_written_again_forgets_its_larger_block(kv: ModuleType, memory: Memory, block: Tensor) -> None:
    """A slot that is written again depends on its new block alone."""
    kv.append_nvfp4(block, *memory, 0)
    once = as_bytes(memory)
    kv.append_nvfp4(1000 * block, *memory, 0)
    kv.append_nvfp4(block, *memory, 0)
    assert all(torch.equal(a, b) for a, b in zip(once, as_bytes(memory), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_listed_slots_are_read_and_no_others(
    kv: ModuleType, device: str, memory: Memory, block: Tensor, dtype: torch.dtype
) -> None:
    """Listed slots are dequantised to their places and rounded once, and other tokens stay as they are."""
    for slot in range(SLOTS):
        kv.append_nvfp4((slot + 1) * block, *memory, slot)
    out = scratch(device, dtype)
    kv.read_nvfp4(*memory, "mse", [3, 1], out)
    rows = out.unflatten(1, (SLOTS, TOKENS))
    assert rows[:, [0, 2]].isnan().all()
    for element in range(BATCH):
        for slot in (1, 3):
            packed = NVFP4(
                memory.values[element, slot].view(-1, CHANNELS // 2).cpu(),
                memory.scales[element, slot].view(-1, CHANNELS // 16).cpu(),
                memory.amax[element, slot].cpu(),
                6.0 * 256,
            )
            matrix = eager.dequantize_nvfp4(packed, (TOKENS * HEADS, CHANNELS), torch.float32, swizzled=False)
            assert torch.equal(rows[element, slot].reshape(-1, CHANNELS).cpu(), matrix.to(dtype))
            error = (matrix.view_as(block[element]) - (slot + 1) * block[element].cpu().float()).norm()
            assert error < 0.1 * matrix.norm()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_mean_is_added_while_a_slot_is_read(
    kv: ModuleType, device: str, memory: Memory, block: Tensor, dtype: torch.dtype
) -> None:
    """The mean of a slot's tokens is added to what was read and rounded, to the bit of a sum of its own."""
    for slot in (0, 2):
        kv.append_nvfp4((slot + 1) * block, *memory, slot)
    mean = torch.randn(BATCH, SLOTS, 1, HEADS, CHANNELS, generator=torch.Generator().manual_seed(1)).to(device)
    plain, centred = scratch(device, dtype), scratch(device, dtype)
    kv.read_nvfp4(*memory, "mse", [0, 2], plain)
    kv.read_nvfp4(*memory, "mse", [0, 2], centred, mean)
    plain, centred = (out.unflatten(1, (SLOTS, TOKENS)) for out in (plain, centred))
    assert torch.equal(centred[:, [0, 2]], (plain[:, [0, 2]].float() + mean[:, [0, 2]]).to(dtype))
    assert centred[:, [1, 3]].isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("channels", [CHANNELS, 48])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fp8_slots_are_read_in_one_rounding(kv: ModuleType, device: str, dtype: torch.dtype, channels: int) -> None:
    """Listed slots hold codes times scales, rounded once; other tokens stay, also in a part of a longer buffer."""
    size, generator = (BATCH, SLOTS, TOKENS, HEADS), torch.Generator().manual_seed(2)
    values = (100 * torch.randn(*size, channels, generator=generator)).to(torch.float8_e4m3fn)
    scales = torch.rand(*size, 1, generator=generator)
    buffer = torch.full((BATCH, 99, HEADS, channels), math.nan, dtype=dtype, device=device)
    kv.read_fp8(values.to(device), scales.to(device), [3, 1], buffer[:, : SLOTS * TOKENS])
    tokens = buffer[:, : SLOTS * TOKENS].unflatten(1, (SLOTS, TOKENS)).cpu()
    assert torch.equal(tokens[:, [1, 3]], (values.float() * scales).to(dtype)[:, [1, 3]])
    assert tokens[:, [0, 2]].isnan().all() and buffer[:, SLOTS * TOKENS :].isnan().all()


def test_no_slots_read_nothing(kv: ModuleType, device: str, memory: Memory, block: Tensor) -> None:
    """Tokens stay as they are if no slot is listed."""
    for slot in range(SLOTS):
        kv.append_nvfp4(block, *memory, slot)
    out = scratch(device)
    kv.read_nvfp4(*memory, "mse", [], out)
    assert out.isnan().all()


def test_the_buffer_read_into_may_be_part_of_a_larger_one(
    kv: ModuleType, device: str, memory: Memory, block: Tensor
) -> None:
    """Slots can be read into a part of a larger buffer, whose other tokens stay as they are."""
    kv.append_nvfp4(block, *memory, 0)
    whole, part = scratch(device), torch.full((BATCH, 99, HEADS, CHANNELS), math.nan, device=device).bfloat16()
    for out in (whole, part[:, : SLOTS * TOKENS]):
        kv.read_nvfp4(*memory, "mse", [0], out)
    assert torch.equal(part[:, :TOKENS], whole[:, :TOKENS])
    assert part[:, TOKENS:].isnan().all()
