"""Rounding and small float formats by integer arithmetic, equal on every GPU and in Triton's interpreter.

Hardware conversions to bfloat16, E4M3 and E2M1 differ: some architectures lack them, and the interpreter truncates.
These functions are exact everywhere. They take and return float32 or uint8 tensors of any shape.
"""

import triton
import triton.language as tl


@triton.jit
def round_bf16(x: tl.tensor) -> tl.tensor:
    """Rounds float32 to the nearest bfloat16, ties to even, as float32, so that a later conversion is exact."""
    bits = x.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return tl.where(x == x, rounded.to(tl.float32, bitcast=True), x)


@triton.jit
def encode_e4m3(x: tl.tensor) -> tl.tensor:
    """float32 → bits of float8_e4m3fn as uint8: to nearest, ties to even, saturated at ±448; NaN stays NaN."""
    magnitude = tl.minimum(tl.abs(x), 448.0)
    bits = magnitude.to(tl.uint32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    # Below 2^-6 E4M3 has a spacing of 2^-9, which is that of float32 at 2^14, so the sum rounds to it.
    subnormal = (magnitude + 16384.0).to(tl.uint32, bitcast=True) & 0xFF
    code = tl.where(x == x, tl.where(magnitude < 0.015625, subnormal, normal), 0x7F)
    return (code | ((x.to(tl.uint32, bitcast=True) >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def decode_e4m3(code: tl.tensor) -> tl.tensor:
    """Bits of float8_e4m3fn as uint8 → float32, exact. Read as float16, the bits give 2^-8 of the value."""
    wide = code.to(tl.uint16)
    bits = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
    value = bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where((wide & 0x7F) == 0x7F, float("nan"), value)


@triton.jit
def round_e2m1(x: tl.tensor) -> tl.tensor:
    """float32 → its magnitude rounded to E2M1 (0, 0.5, 1, 1.5, 2, 3, 4, 6): to nearest, ties to even, saturated."""
    shifted, magic = _add_magic(x)
    return shifted - magic


@triton.jit
def encode_e2m1(x: tl.tensor) -> tl.tensor:
    """float32 → E2M1 code 0 … 15 as uint8, sign in bit 3: to nearest, ties to even, saturated; −0 keeps its sign."""
    shifted, _magic = _add_magic(x)
    bits = shifted.to(tl.uint32, bitcast=True)
    # The biased exponent is 149 + e (see `_add_magic`), and the low mantissa bits count steps of the grid from zero.
    magnitude = (bits >> 22) + (bits & 15) - 298
    return (magnitude | ((x.to(tl.uint32, bitcast=True) >> 28) & 8)).to(tl.uint8)


@triton.jit
def _add_magic(x: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The magnitude plus a magic number that rounds it to the E2M1 grid, and the magic number.

    The grid at a magnitude m has the step 2^e / 2, where 2^e is 1, 2 or 4, the power of two at or below m (at least 1).
    The magic number is 2^(e + 22), where float32 has just this spacing, so the sum rounds m to the grid.
    """
    magnitude = tl.minimum(tl.abs(x), 6.0)
    power = tl.maximum(magnitude.to(tl.int32, bitcast=True) & 0x7F800000, 0x3F800000) + (22 << 23)
    magic = power.to(tl.float32, bitcast=True)
    return magnitude + magic, magic


@triton.jit
def decode_e2m1(code: tl.tensor) -> tl.tensor:
    """E2M1 code 0 … 15 as uint8 → float32, exact. Read as float16, the bits give 2^-14 of the value."""
    wide = code.to(tl.uint16)
    bits = ((wide & 8) << 12) | ((wide & 7) << 9)
    return bits.to(tl.float16, bitcast=True).to(tl.float32) * 16384.0
