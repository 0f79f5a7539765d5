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
    NVFP4,
    check_packed,
    check_uniforms,
    denominator_of,
    padded_shape,
    swizzle_scales,
    unswizzle_scales,
)
from .nvfp4_rounding import (
    add_magic,
    block_errors,
    candidate_scales,
    choose_scales,
    codes_of,
    encode_factor,
    magic_of,
    round_stochastic,
    unsaturated,
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
    return quantize_with_amax(x, amax_of(x), rule, tile=tile, swizzled=swizzled, high_first=high_first)


def amax_of(x: Tensor) -> Tensor:
    """The largest magnitude of x, float32 without dimensions."""
    return torch.stack(torch.aminmax(x.detach())).float().abs().amax()


def quantize_with_amax(
    x: Tensor, amax: Tensor, rule: str, *, tile: bool = False, swizzled: bool = True, high_first: bool = False
) -> NVFP4:
    """`quantize_nvfp4` of a part of a matrix. amax: of the whole matrix."""
    rows, columns = x.shape
    denominator = denominator_of(rule)
    height, width = padded_shape(rows, columns, swizzled)
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


def quantize_nvfp4_stochastic(
    x: Tensor, uniforms: Tensor, rule: str = "mse", *, unbiased: bool = True, swizzled: bool = True
) -> NVFP4:
    """Quantises a matrix to NVFP4 with stochastic rounding: up or down, with a probability that keeps the mean.

    x: `[M, K]`, any float dtype. uniforms: random numbers in [0, 1), float32 `[M, K]`. swizzled: as in
    `quantize_nvfp4`. unbiased: choose the scale of a block by the errors of nearest rounding, and take the next larger
    one where its largest value would saturate; then the mean over many uniforms is x. Otherwise, as LongLive 2.0 does,
    scales may saturate, and a 4-over-6 rule compares the errors of values that are rounded stochastically already,
    which favours small ones; it rounds for each candidate, with uniforms `[2, M, K]`, first those of the scale of 6.

    Raises ValueError for an unknown rule and for uniforms of another shape.
    """
    rows, columns = x.shape
    denominator = denominator_of(rule)
    check_uniforms(uniforms, x, rule, unbiased)
    height, width = padded_shape(rows, columns, swizzled)
    amax = torch.stack(torch.aminmax(x.detach())).float().abs().amax()
    values = x.new_zeros(height, width // 2, dtype=torch.uint8)
    scales = x.new_zeros(height, width // BLOCK, dtype=torch.uint8).view(torch.float8_e4m3fn)
    for strip in _strips(values[:rows]):
        pad = (0, width - columns)
        part = F.pad(x.detach()[strip].float(), pad).view(-1, 1, width // BLOCK, BLOCK)
        random = F.pad(uniforms.view(-1, rows, columns)[:, strip] - 0.5, pad).view(-1, *part.shape)
        codes, chosen = _quantize_stochastic(part, random, amax, rule, denominator, unbiased)
        values[strip] = _pack(codes.view(-1, width), False)
        scales[strip] = chosen.view(-1, width // BLOCK)
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
    encode, magnitudes = encode_factor(amax, denominator), blocks.abs()
    scales = choose_scales(magnitudes, encode, amax, rule, denominator)
    shifted, _ = add_magic(magnitudes, scales, encode)
    return codes_of(shifted, blocks.view(torch.int32), scales), scales.to(torch.float8_e4m3fn)


def _quantize_stochastic(
    blocks: Tensor, random: Tensor, amax: Tensor, rule: str, denominator: float, unbiased: bool
) -> tuple[Tensor, Tensor]:
    """As `_quantize`; random: numbers in [−½, ½), `[N, G, H, C, 16]`, for each of N candidates."""
    encode, magnitudes = encode_factor(amax, denominator), blocks.abs()
    if unbiased:
        scales = unsaturated(choose_scales(magnitudes, encode, amax, rule, denominator), magnitudes, encode)
        rounded = round_stochastic(magnitudes, scales, encode, random[0])
    else:
        scales, *smaller = candidate_scales(magnitudes, encode, rule)
        rounded = round_stochastic(magnitudes, scales, encode, random[0])
        if smaller:
            other = round_stochastic(magnitudes, smaller[0], encode, random[1])
            errors = [
                block_errors(values.clone(), s, magnitudes, amax, rule, denominator)
                for values, s in ((other, smaller[0]), (rounded, scales))
            ]
            better = errors[0] < errors[1]
            scales, rounded = torch.where(better, smaller[0], scales), torch.where(better, other, rounded)
    signs = blocks.view(torch.int32) ^ rounded.view(torch.int32)
    shifted = rounded.abs_().add_(magic_of(rounded))
    return codes_of(shifted, signs, scales), scales.to(torch.float8_e4m3fn)


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
