"""NVFP4 in plain PyTorch, the reference for other backends, to the bit.

The order of the float32 operations is part of the format and is that of FourOverSix: another order gives other codes at
ties. Divisors are tensors, because PyTorch on a GPU multiplies by the reciprocal of a Python number. Matrices are
processed in strips of rows, so that a large weight needs little more memory than its codes.
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
"""Values per strip: few enough to save memory, and enough to make threads and kernel launches worthwhile."""


def quantize_nvfp4(
    x: Tensor, rule: str = "mse", *, tile: bool = False, swizzled: bool = True, high_first: bool = False
) -> NVFP4:
    """Quantises a matrix to NVFP4, with one scale for each 16 values of a row.

    x: `[M, K]`, any float dtype. tile: share a scale among 16×16 values, so that a matrix and its transpose get equal
    values. swizzled: scales in the 128×4 layout, with zero padding to multiples of 128 rows and 64 columns; otherwise
    only columns are padded, to a multiple of 16. high_first: even columns in the high nibble. A matrix with an amax
    below 2^-100 becomes zeros. Raises ValueError for an unknown rule.
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
    """Dequantises NVFP4 to a matrix `[M, K]` of `shape`, in float32 and then rounded to `dtype`.

    swizzled, high_first: as in `quantize_nvfp4`. out: `[M, K]`, gets the result in its own dtype and is returned.
    Raises ValueError if codes or scales do not cover `shape`.
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
    """Slices of the rows of codes `[R, K/2]`. All but the last have a multiple of `height` rows."""
    rows, width = values.shape
    step = max(_STRIP // (2 * width * height), 1) * height
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]


def _quantize(blocks: Tensor, amax: Tensor, rule: str, denominator: float) -> tuple[Tensor, Tensor]:
    """float32 `[G, H, C, 16]` → codes uint8 of the same shape, and scales float8 `[G, 1, C, 1]`."""
    # Zero makes all scales and all codes zero.
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
    # The biased exponent is 149 + e (see `_add_magic`), and the low mantissa bits count steps of the grid from zero.
    codes = (bits >> 22).sub_(298).add_(bits & 15)
    codes.bitwise_or_((blocks.view(torch.int32) >> 28).bitwise_and_(8)).mul_(scales > 0)
    return codes.to(torch.uint8), scales.to(torch.float8_e4m3fn)


def _e4m3(x: Tensor) -> Tensor:
    return x.clamp(max=448.0).to(torch.float8_e4m3fn).float()


def _error(magnitudes: Tensor, scales: Tensor, encode: Tensor, amax: Tensor, rule: str, denominator: float) -> Tensor:
    """Quantisation error by the rule, `[G, 1, C, 1]`, over the values of each scale; magnitudes `[G, H, C, 16]`."""
    shifted, magic = _add_magic(magnitudes, scales, encode)
    error = shifted.sub_(magic).mul_(scales).mul_(amax).div_(amax.new_full((), denominator)).sub_(magnitudes)
    if rule == "mse":
        return error.square_().sum((1, 3), keepdim=True)
    return error.abs_().sum((1, 3), keepdim=True) if rule == "mae" else error.abs_().amax((1, 3), keepdim=True)


def _add_magic(magnitudes: Tensor, scales: Tensor, encode: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled magnitudes plus a magic number that rounds them to the E2M1 grid, and the magic number.

    The grid at a magnitude m has the step 2^e / 2, where 2^e is 1, 2 or 4, the power of two at or below m (at least 1).
    The magic number is 2^(e + 22), where float32 has just this spacing, so the sum rounds m to nearest, ties to even.
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
    """The values of the even and the odd column for each byte, float32 `[256, 2]`, computed on the device."""
    byte = torch.arange(256, dtype=torch.int32, device=device)
    low, high = byte & 15, byte >> 4
    codes = torch.stack((high, low) if high_first else (low, high), dim=1)
    bits = (codes & 7) << 9 | (codes & 8) << 12
    return bits.to(torch.int16).view(torch.float16).float() * 16384.0
