"""Roundings of Triton's helpers against torch's, on every number where they could differ."""

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402
from longlive.kernels.triton import bits  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
E4M3 = torch.float8_e4m3fn


@triton.jit
def _apply(x: tl.tensor, out: tl.tensor, count: tl.tensor, HELPER: tl.constexpr, SIZE: tl.constexpr) -> None:
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    value = tl.load(x + at, mask=at < count)
    if HELPER == "round_bf16":
        value = bits.round_bf16(value)
    elif HELPER == "encode_e4m3":
        value = bits.encode_e4m3(value)
    elif HELPER == "decode_e4m3":
        value = bits.decode_e4m3(value)
    elif HELPER == "encode_e2m1":
        value = bits.encode_e2m1(value)
    elif HELPER == "round_e2m1":
        value = bits.round_e2m1(value)
    else:
        value = bits.decode_e2m1(value)
    tl.store(out + at, value, mask=at < count)


def apply(helper: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    out = torch.full(x.shape, 255, device=DEVICE).to(dtype)
    _apply[(triton.cdiv(x.numel(), 65536),)](x.to(DEVICE), out, x.numel(), helper, 65536)
    return out.cpu()


@pytest.fixture(scope="module")
def numbers() -> Tensor:
    """Every bfloat16, the ties between every two, and every E4M3 tie with its neighbours."""
    exact = (torch.arange(1 << 16) << 16).to(torch.int32).view(torch.float32)
    ties = ((torch.arange(1 << 16) << 16) | 0x8000).to(torch.int32).view(torch.float32)
    codes = torch.arange(127, dtype=torch.uint8).view(E4M3).float()
    halves = (codes[1:] + codes[:-1]) / 2
    near = torch.cat([halves, halves.nextafter(torch.tensor(0.0)), halves.nextafter(torch.tensor(1e9))])
    return torch.cat([exact, ties, near, -near])


def test_round_bf16_is_nearest_ties_to_even(numbers: Tensor) -> None:
    """float32 is rounded to bfloat16 as torch rounds it: to nearest, ties to even."""
    torch.testing.assert_close(
        apply("round_bf16", numbers, torch.float32), numbers.bfloat16().float(), rtol=0, atol=0, equal_nan=True
    )


def test_e4m3_is_encoded_as_torch_does_but_saturates(numbers: Tensor) -> None:
    """E4M3 codes are those of torch, and larger numbers saturate at 448."""
    code = apply("encode_e4m3", numbers, torch.uint8)
    expected = numbers.clamp(-448, 448).to(E4M3).view(torch.uint8)
    assert torch.equal(code & 0x7F, expected & 0x7F)
    assert torch.equal(code[~numbers.isnan()], expected[~numbers.isnan()])


def test_every_e4m3_is_decoded() -> None:
    """Every E4M3 code is decoded to the number of torch, NaN included."""
    code = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(
        apply("decode_e4m3", code, torch.float32), code.view(E4M3).float(), rtol=0, atol=0, equal_nan=True
    )


def test_e2m1_is_nearest_ties_to_even_saturated_and_signed(numbers: Tensor) -> None:
    """E2M1 codes are the nearest numbers with the sign of the input, ties to even, saturated at 6."""
    numbers = numbers[~numbers.isnan()]
    grid = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    distance = (numbers.double().abs().clamp(max=6)[:, None] - grid).abs()
    # Of two as near, the even code: odd ones are taken for farther away, by less than float32 can tell.
    nearest = (distance + torch.arange(8) % 2 * 1e-12).argmin(1)
    code = apply("encode_e2m1", numbers, torch.uint8)
    assert torch.equal(code.long(), nearest + 8 * numbers.signbit())
    assert torch.equal(apply("round_e2m1", numbers, torch.float32), grid[nearest])
    assert torch.equal(apply("decode_e2m1", code, torch.float32).abs(), grid[nearest])


def test_e2m1_decodes_signs() -> None:
    """E2M1 codes from 8 on are decoded to negative numbers, −0 included."""
    code = torch.arange(16, dtype=torch.uint8)
    assert torch.equal(apply("decode_e2m1", code, torch.float32).signbit(), code >= 8)
