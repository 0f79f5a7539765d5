"""NVFP4 in plain torch, exact to the bit: what the other backends must equal.

The order of the float32 operations is part of the format (they are those of FourOverSix): another order gives other
codes at ties. Divisions are by tensors, never by Python numbers, which CUDA multiplies by their reciprocal instead.
Matrices are worked through in strips of rows: a weight of any size needs little more memory than its codes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..nvfp4_format import (
    BLOCK,
    MIN_AMAX,
    NVFP4,
    check_packed,
    denominator_of,
    padded_shape,
    swizzle_scales,
    unswizzle_scales,
)

_STRIP = 1 << 21
"""Values worked on at once: few enough to be small, enough to be worth starting threads or kernels for."""


def quantize_nvfp4(
    x: Tensor, rule: str = "mse", *, tile: bool = False, swizzled: bool = True, high_first: bool = False
) -> NVFP4:
    """A matrix → NVFP4, with one scale for each 16 values of a row.

    x `[M, K]` of any float dtype. Swizzled, rows are padded to 128 and columns to 64 with zeros; flat, only columns
    to 16. `tile` shares a scale among 16×16 values, so that a matrix and its transpose quantise alike. `high_first`
    puts even columns in the high nibble. A matrix whose largest magnitude is below 2^-100 becomes zeros. Raises
    ValueError for an unknown rule.
    """
    rows, columns = x.shape
    denominator = denominator_of(rule)
    height, width = padded_shape(rows, columns, swizzled)
    amax = torch.stack(torch.aminmax(x.detach())).float().abs().amax()
    values = x.new_empty(height, width // 2, dtype=torch.uint8)
    scales = x.new_empty(height, width // BLOCK, dtype=torch.float8_e4m3fn)
    rest = BLOCK if tile else 1
    for strip in _strips(values, rest):
        part, count = x.detach()[strip].float(), len(values[strip])
        part = F.pad(part, (0, width - columns, 0, count + -count % rest - len(part)))
        codes, chosen = _quantize(part.reshape(-1, rest, width // BLOCK, BLOCK), amax, rule, denominator)
        values[strip] = _pack(codes.view(-1, width), high_first)[:count]
        scales[strip] = chosen.expand(-1, rest, -1, 1).reshape(-1, width // BLOCK)[:count]
    return NVFP4(values, swizzle_scales(scales) if swizzled else scales, amax, denominator)


def dequantize_nvfp4(
    packed: NVFP4,
    shape: tuple[int, int],
    dtype: torch.dtype,
    *,
    swizzled: bool = True,
    high_first: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """NVFP4 → the matrix `[M, K]` of `shape`, rounded to `dtype` once, from float32.

    `swizzled` and `high_first` as it was quantised. `out` `[M, K]` takes the result and is returned; its dtype counts.
    Raises ValueError where codes or scales do not cover `shape`.
    """
    check_packed(packed, shape, swizzled)
    rows, columns = shape
    width = 2 * packed.values.shape[1]
    scales = unswizzle_scales(packed.scales, rows, width // BLOCK) if swizzled else packed.scales
    result = packed.values.new_empty(shape, dtype=dtype) if out is None else out
    denominator = packed.amax.new_full((), packed.denominator)
    table = _byte_table(packed.amax.device, high_first)
    for strip in _strips(packed.values[:rows]):
        part = F.embedding(packed.values[:rows][strip].int(), table).view(-1, width // BLOCK, BLOCK)
        part = part.mul_(scales[strip].float().unsqueeze(-1)).mul_(packed.amax).div_(denominator)
        result[strip] = part.view(-1, width)[:, :columns]
    return result


def _strips(values: Tensor, height: int = 1) -> list[slice]:
    """Slices of the rows of codes `[R, K/2]`, each but the last a multiple of `height`."""
    rows, width = values.shape
    step = max(_STRIP // (2 * width * height), 1) * height
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def _quantize(blocks: Tensor, amax: Tensor, rule: str, denominator: float) -> tuple[Tensor, Tensor]:
    """float32 `[G, H, C, 16]` → codes, uint8 of that shape, and scales, float8 `[G, 1, C, 1]`, one for each g and c."""
    # Zero makes all scales zero, and all codes with them.
    encode = torch.where(amax >= MIN_AMAX, amax.new_full((), denominator) / amax, 0.0)
    magnitudes = blocks.abs()
    peaks = magnitudes.amax((1, 3), keepdim=True)
    base = peaks / amax.new_full((), 4.0 if rule == "static_4" else 6.0) * encode
    scales = _e4m3(base)
    if rule not in ("static_6", "static_4"):
        smaller = _e4m3(1.5 * base)
        errors = [_error(magnitudes, s, encode, amax, rule, denominator) for s in (smaller, scales)]
        scales = torch.where(errors[0] < errors[1], smaller, scales)
    shifted, _ = _add_magic(magnitudes, scales, encode)
    bits = shifted.view(torch.int32)
    # The exponent is 149 + that of the power of two, and the mantissa counts the steps from zero.
    codes = (bits >> 22).sub_(298).add_(bits & 15)
    codes.bitwise_or_((blocks.view(torch.int32) >> 28).bitwise_and_(8)).mul_(scales > 0)
    return codes.to(torch.uint8), scales.to(torch.float8_e4m3fn)


def _e4m3(x: Tensor) -> Tensor:
    return x.clamp(max=448.0).to(torch.float8_e4m3fn).float()


def _error(magnitudes: Tensor, scales: Tensor, encode: Tensor, amax: Tensor, rule: str, denominator: float) -> Tensor:
    """How far dequantised values would be from the magnitudes, summed over what shares a scale."""
    shifted, magic = _add_magic(magnitudes, scales, encode)
    error = shifted.sub_(magic).mul_(scales).mul_(amax).div_(amax.new_full((), denominator)).sub_(magnitudes)
    if rule == "mse":
        return error.square_().sum((1, 3), keepdim=True)
    return error.abs_().sum((1, 3), keepdim=True) if rule == "mae" else error.abs_().amax((1, 3), keepdim=True)


def _add_magic(magnitudes: Tensor, scales: Tensor, encode: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled magnitudes rounded to the E2M1 grid, plus the number that rounds them, and that number.

    The grid's step is half of 1, 2 or 4, the power of two at or below a magnitude. Plus 2^22 of that power, half of it
    is the last place of a float32, so that the sum rounds to the grid, to nearest and ties to even.
    """
    reciprocal = torch.where(scales > 0, (encode.reciprocal() * scales).reciprocal(), 0.0)
    scaled = (magnitudes * reciprocal).clamp_(max=6.0)
    powers = (scaled.view(torch.int32) & 0x7F800000).clamp_(min=0x3F800000).add_(22 << 23)
    magic = powers.view(torch.float32)
    return scaled.add_(magic), magic


def _pack(codes: Tensor, high_first: bool) -> Tensor:
    even, odd = codes[:, 0::2], codes[:, 1::2]
    return even << 4 | odd if high_first else odd << 4 | even


def _byte_table(device: torch.device, high_first: bool) -> Tensor:
    """float32 `[256, 2]`: the values of the even and the odd column for each byte. Made on the device, not sent there.

    As float16 the bits of an E2M1 code are 2^14 smaller.
    """
    byte = torch.arange(256, dtype=torch.int32, device=device)
    low, high = byte & 15, byte >> 4
    codes = torch.stack((high, low) if high_first else (low, high), dim=1)
    bits = (codes & 7) << 9 | (codes & 8) << 12
    return bits.to(torch.int16).view(torch.float16).float() * 16384.0
