"""Rounding and small floats by integer arithmetic, the same on every GPU and in Triton's interpreter.

Hardware conversions to bfloat16, E4M3 and E2M1 differ: some architectures lack them and the interpreter truncates.
These helpers are exact everywhere. They take and return float32 or uint8 tensors of any shape.
"""

import triton
import triton.language as tl


@triton.jit
def round_bf16(x: tl.tensor) -> tl.tensor:
    """float32 → float32 that bfloat16 holds exactly (nearest, ties to even), so that any later conversion is exact."""
    bits = x.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return tl.where(x == x, rounded.to(tl.float32, bitcast=True), x)


@triton.jit
def encode_e4m3(x: tl.tensor) -> tl.tensor:
    """float32 → uint8 bits of float8_e4m3fn: nearest, ties to even, saturated at ±448; NaN stays NaN."""
    magnitude = tl.minimum(tl.abs(x), 448.0)
    bits = magnitude.to(tl.uint32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    # Below 2^-6 the grid is 2^-9 wide: that is the last place of numbers at 2^14, so the sum rounds for us.
    subnormal = (magnitude + 16384.0).to(tl.uint32, bitcast=True) & 0xFF
    code = tl.where(x == x, tl.where(magnitude < 0.015625, subnormal, normal), 0x7F)
    return (code | ((x.to(tl.uint32, bitcast=True) >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def decode_e4m3(code: tl.tensor) -> tl.tensor:
    """uint8 bits of float8_e4m3fn → float32, exact: as float16 the same bits are 2^8 smaller, subnormals too."""
    wide = code.to(tl.uint16)
    bits = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
    value = bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
    return tl.where((wide & 0x7F) == 0x7F, float("nan"), value)


@triton.jit
def round_e2m1(x: tl.tensor) -> tl.tensor:
    """float32 → its magnitude on the E2M1 grid 0, 0.5, 1, 1.5, 2, 3, 4, 6: nearest, ties to even, saturated."""
    shifted, magic = _add_magic(x)
    return shifted - magic


@triton.jit
def encode_e2m1(x: tl.tensor) -> tl.tensor:
    """float32 → uint8 E2M1 code 0…15 (sign in bit 3): nearest, ties to even, saturated at ±6; −0 keeps its sign."""
    shifted, _magic = _add_magic(x)
    bits = shifted.to(tl.uint32, bitcast=True)
    # The exponent is 149 + that of the power of two, and the mantissa counts the grid's steps from zero.
    magnitude = (bits >> 22) + (bits & 15) - 298
    return (magnitude | ((x.to(tl.uint32, bitcast=True) >> 28) & 8)).to(tl.uint8)


@triton.jit
def _add_magic(x: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The magnitude plus the number that rounds it to the E2M1 grid, and that number.

    The grid's step is half of 1, 2 or 4, the power of two at or below a magnitude. Plus 2^22 of that power, half of it
    is the last place of a float32, so that the sum rounds to the grid.
    """
    magnitude = tl.minimum(tl.abs(x), 6.0)
    power = tl.maximum(magnitude.to(tl.int32, bitcast=True) & 0x7F800000, 0x3F800000) + (22 << 23)
    magic = power.to(tl.float32, bitcast=True)
    return magnitude + magic, magic


@triton.jit
def decode_e2m1(code: tl.tensor) -> tl.tensor:
    """uint8 E2M1 code 0…15 → float32, exact: as float16 the same bits are 2^14 smaller, the subnormal 0.5 too."""
    wide = code.to(tl.uint16)
    bits = ((wide & 8) << 12) | ((wide & 7) << 9)
    return bits.to(tl.float16, bitcast=True).to(tl.float32) * 16384.0
