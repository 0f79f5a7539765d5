"""The NVFP4 number format: 4-bit E2M1 values in blocks of 16 along a row, one E4M3 scale a block, one float32 maximum.

Scale rules: Cook et al., "Four Over Six", 2025 (arXiv 2512.02010) for mse, mae and abs_max; static_6 is NVIDIA's rule.
The swizzle is the 128×4 layout of block scales in the cuBLAS documentation.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 16
"""Values that share a scale."""

RULES = ("static_6", "static_4", "mse", "mae", "abs_max")
"""How a block's scale is chosen: its maximum becomes 6, or 4, or whichever of them has the smaller error."""

MIN_AMAX = 2.0**-100
"""A matrix whose largest magnitude is below becomes zeros: reciprocals of its scales would leave float32."""

# The largest E2M1 value times the largest scale. 4-over-6 keeps 256 of E4M3's 448, so that a scale may grow by 6/4.
_DENOMINATORS = {"static_6": 6.0 * 448, "static_4": 4.0 * 448}
_FOUR_OVER_SIX = 6.0 * 256


class NVFP4(NamedTuple):
    """A quantised matrix; dequantised it is ((value · scale) · amax) / denominator, in float32 and in this order."""

    values: Tensor
    """uint8 `[R, K/2]`, two E2M1 codes a byte."""
    scales: Tensor
    """float8_e4m3fn: `[R · K/16]` in the 128×4 layout when swizzled, else `[R, K/16]`."""
    amax: Tensor
    """float32 `[]`, the largest magnitude of the whole matrix."""
    denominator: float
    """6 · 256 of the 4-over-6 rules, 6 · 448 of static_6, 4 · 448 of static_4."""


def denominator_of(rule: str) -> float:
    """The largest value × scale of a rule. Raises ValueError when there is no such rule."""
    if rule not in RULES:
        raise ValueError(f"NVFP4 scale rule {rule!r} is unknown: choose one of {', '.join(RULES)}")
    return _DENOMINATORS.get(rule, _FOUR_OVER_SIX)


def padded_shape(rows: int, columns: int, swizzled: bool) -> tuple[int, int]:
    """The shape that is quantised: rows to 128 and columns to 64 when swizzled, else only columns to a block."""
    if swizzled:
        return -(-rows // 128) * 128, -(-columns // 64) * 64
    return rows, -(-columns // BLOCK) * BLOCK


def check_packed(packed: NVFP4, shape: tuple[int, int], swizzled: bool) -> None:
    """Raises ValueError where codes or scales do not cover a matrix of `shape`: a kernel would read beside them."""
    height, width = packed.values.shape[0], 2 * packed.values.shape[1]
    if height < shape[0] or width < shape[1]:
        raise ValueError(f"NVFP4 codes of a matrix {height}×{width} do not hold one of {shape[0]}×{shape[1]}")
    blocks = width // BLOCK
    count = -(-shape[0] // 128) * 128 * -(-blocks // 4) * 4 if swizzled else height * blocks
    if packed.scales.numel() != count:
        layout = "swizzled" if swizzled else "flat"
        raise ValueError(
            f"{packed.scales.numel()} {layout} NVFP4 scales do not fit {shape[0]}×{shape[1]}: it has {count}"
        )


def swizzle_scales(scales: Tensor) -> Tensor:
    """Scales `[R, C]` of one byte each → flat in the 128×4 layout, padded with zeros to 128 rows and 4 columns."""
    rows, columns = scales.shape
    padded = F.pad(scales.view(torch.uint8), (0, -columns % 4, 0, -rows % 128))
    tiles = padded.view(-1, 4, 32, padded.shape[1] // 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(-1).view(scales.dtype)


def unswizzle_scales(flat: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse: scales in the 128×4 layout, of any shape → `[rows, columns]`, what was padding cut away.

    Raises ValueError when there are more or fewer scales than the padded shape holds.
    """
    height, width = -(-rows // 128) * 128, -(-columns // 4) * 4
    if flat.numel() != height * width:
        raise ValueError(
            f"{flat.numel()} swizzled scales do not fit {rows}×{columns}, which is {height}×{width} with its padding: "
            f"give the rows and the columns / {BLOCK} of the quantised matrix"
        )
    tiles = flat.reshape(-1).view(torch.uint8).view(height // 128, width // 4, 32, 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(height, width)[:rows, :columns].contiguous().view(flat.dtype)


def swap_nibbles(values: Tensor) -> Tensor:
    """uint8 codes with the two of each byte exchanged: low nibble first ↔ high nibble first. Same shape."""
    return values << 4 | values >> 4
