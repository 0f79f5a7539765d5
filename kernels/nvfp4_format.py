"""The NVFP4 number format: E2M1 values of 4 bits, an E4M3 scale per block of 16 in a row, one float32 amax per matrix.

Scale rules: mse, mae and abs_max are those of Cook et al., "Four Over Six", 2025 (arXiv 2512.02010); static_6 is
NVIDIA's rule. The swizzled order of scales is the 128×4 layout of block scales in the cuBLAS documentation.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 16
"""Number of values that share a scale."""

RULES = ("static_6", "static_4", "mse", "mae", "abs_max")
"""How the scale of a block is chosen: the maximum maps to 6 (static_6), to 4 (static_4), or to the one with the smaller
error: mean squared, mean absolute or largest."""

MIN_AMAX = 2.0**-100
"""A matrix with a smaller amax is quantised to zeros, because reciprocals of its scales would overflow float32."""

SATURATION = 6.0 * (1 + 2.0**-20)
"""Scaled magnitudes above this one exceed the largest E2M1 value, 6, by more than rounding errors of float32."""

# The largest E2M1 value times the largest scale. 4-over-6 may multiply a scale by 6/4, so it uses 256 of E4M3's 448.
_DENOMINATORS = {"static_6": 6.0 * 448, "static_4": 4.0 * 448}
_FOUR_OVER_SIX = 6.0 * 256


class NVFP4(NamedTuple):
    """A quantised matrix `[R, K]`: ((value · scale) · amax) / denominator, in float32 and in this order."""

    values: Tensor
    """uint8 `[R, K/2]`, two E2M1 codes in each byte."""
    scales: Tensor
    """float8_e4m3fn, `[R · K/16]` in the 128×4 layout if swizzled, otherwise `[R, K/16]`."""
    amax: Tensor
    """float32 `[]`, the largest magnitude in the matrix."""
    denominator: float
    """6 · 256 for the 4-over-6 rules, 6 · 448 for static_6, 4 · 448 for static_4."""


def denominator_of(rule: str) -> float:
    """The largest value times the largest scale under a rule. Raises ValueError for an unknown rule."""
    if rule not in RULES:
        raise ValueError(f"NVFP4 scale rule {rule!r} is unknown; choose one of {', '.join(RULES)}")
    return _DENOMINATORS.get(rule, _FOUR_OVER_SIX)


def check_uniforms(uniforms: Tensor, x: Tensor, rule: str, unbiased: bool) -> None:
    """Raises ValueError if there is not one random number for each value of x and each candidate of its scale."""
    both = not unbiased and rule not in _DENOMINATORS
    shape = (2, *x.shape) if both else tuple(x.shape)
    if tuple(uniforms.shape) != shape or uniforms.dtype != torch.float32:
        raise ValueError(
            f"uniforms are {tuple(uniforms.shape)} {uniforms.dtype}, but rule {rule} "
            f"{'with' if unbiased else 'without'} unbiased rounding needs {shape} torch.float32"
        )


def padded_shape(rows: int, columns: int, swizzled: bool) -> tuple[int, int]:
    """The padded shape of a matrix: multiples of 128 rows and 64 columns if swizzled, otherwise of 16 columns."""
    if swizzled:
        return -(-rows // 128) * 128, -(-columns // 64) * 64
    return rows, -(-columns // BLOCK) * BLOCK


def check_packed(packed: NVFP4, shape: tuple[int, int], swizzled: bool) -> None:
    """Raises ValueError if codes or scales do not cover a matrix of `shape`; a kernel would read out of bounds."""
    height, width = packed.values.shape[0], 2 * packed.values.shape[1]
    if height < shape[0] or width < shape[1]:
        raise ValueError(f"NVFP4 codes of a {height}×{width} matrix do not cover a {shape[0]}×{shape[1]} matrix")
    blocks = width // BLOCK
    count = -(-shape[0] // 128) * 128 * -(-blocks // 4) * 4 if swizzled else height * blocks
    if packed.scales.numel() != count:
        layout = "swizzled" if swizzled else "flat"
        raise ValueError(
            f"a {shape[0]}×{shape[1]} matrix has {count} {layout} NVFP4 scales, not {packed.scales.numel()}"
        )


def swizzle_scales(scales: Tensor) -> Tensor:
    """Scales `[R, C]` of one byte → 1-D in the 128×4 layout, zero-padded to multiples of 128 rows and 4 columns."""
    rows, columns = scales.shape
    padded = F.pad(scales.view(torch.uint8), (0, -columns % 4, 0, -rows % 128))
    tiles = padded.view(-1, 4, 32, padded.shape[1] // 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(-1).view(scales.dtype)


def unswizzle_scales(flat: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `swizzle_scales`: scales in the 128×4 layout, of any shape → `[rows, columns]` without padding.

    Raises ValueError if the number of scales is not that of the padded shape.
    """
    height, width = -(-rows // 128) * 128, -(-columns // 4) * 4
    if flat.numel() != height * width:
        raise ValueError(
            f"{flat.numel()} swizzled scales do not fit {rows}×{columns}, which is {height}×{width} with padding; give "
            f"the rows and the columns / {BLOCK} of the quantised matrix"
        )
    tiles = flat.reshape(-1).view(torch.uint8).view(height // 128, width // 4, 32, 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(height, width)[:rows, :columns].contiguous().view(flat.dtype)


def swap_nibbles(values: Tensor) -> Tensor:
    """Exchanges the two 4-bit codes in each byte, low nibble first ↔ high nibble first; any shape, uint8."""
    return values << 4 | values >> 4
