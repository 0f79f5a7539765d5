"""Rounding and small float formats, equal on every GPU and in Triton's interpreter.

Conversions to bfloat16 and E4M3 are one instruction where the hardware has it. Elsewhere they are integer arithmetic,
which makes a kernel bound by instructions: in the interpreter, which truncates, and for E4M3 on GPUs before sm_89. E2M1
is arithmetic everywhere. The functions take and return float32 or uint8 tensors of any shape.
"""

from typing import Any

import triton
import triton.language as tl
from triton import knobs
from triton.runtime import driver

INTERPRETED: tl.constexpr = tl.constexpr(knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter."""


def _converts_e4m3() -> bool:
    """Whether the GPU that a kernel is compiled for converts to E4M3 and back."""
    if knobs.runtime.interpret:
        return False
    target: Any = driver.active.get_current_target()
    return target.backend == "cuda" and int(target.arch) >= 89


# Triton compiles the functions that its own refer to, unless this mark says that they run in Python.
setattr(_converts_e4m3, "__triton_builtin__", True)  # noqa: B010

# Triton 3.4 has it in its language.
_constexpr_function: Any = getattr(triton, "constexpr_function", None) or getattr(tl, "constexpr_function", None)


@_constexpr_function
def has_e4m3() -> bool:
    """`_converts_e4m3` as a constant of the kernel."""
    return _converts_e4m3()


@triton.jit
def round_bf16(x: tl.tensor) -> tl.tensor:
    """Rounds float32 to the nearest bfloat16, ties to even, as float32, so that a later conversion is exact."""
    if INTERPRETED:
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        x = tl.where(x == x, rounded.to(tl.float32, bitcast=True), x)
    else:
        x = x.to(tl.bfloat16).to(tl.float32)
    return x


@triton.jit
def encode_e4m3(x: tl.tensor) -> tl.tensor:
    """float32 → bits of float8_e4m3fn as uint8: to nearest, ties to even, saturated at ±448; NaN stays NaN."""
    return x.to(tl.float8e4nv).to(tl.uint8, bitcast=True) if has_e4m3() else _encode_e4m3_by_bits(x)


@triton.jit
def _encode_e4m3_by_bits(x: tl.tensor) -> tl.tensor:
    magnitude = tl.minimum(tl.abs(x), 448.0)
    bits = magnitude.to(tl.uint32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    # Below 2^-6 E4M3 has a spacing of 2^-9, which is that of float32 at 2^14, so the sum rounds to it.
    subnormal = (magnitude + 16384.0).to(tl.uint32, bitcast=True) & 0xFF
    code = tl.where(x == x, tl.where(magnitude < 0.015625, subnormal, normal), 0x7F)
    return (code | ((x.to(tl.uint32, bitcast=True) >> 24) & 0x80)).to(tl.uint8)


@triton.jit
def decode_e4m3(code: tl.tensor) -> tl.tensor:
    """Bits of float8_e4m3fn as uint8 → float32, exact."""
    if has_e4m3():
        value = code.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    else:
        # Read as float16, the bits give 2^-8 of the value.
        wide = code.to(tl.uint16)
        bits = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        value = bits.to(tl.float16, bitcast=True).to(tl.float32) * 256.0
        value = tl.where((wide & 0x7F) == 0x7F, float("nan"), value)
    return value


@triton.jit
def divide_by(x: tl.tensor, divisor: tl.tensor) -> tl.tensor:
    """x / divisor to nearest, for one positive divisor of many finite numbers; results below 2^-60 may be one ulp off.

    A division takes about ten instructions. Here it is a product with the reciprocal and one correction by the exact
    remainder, which are three.
    """
    if INTERPRETED:
        # It has no fused multiply-add.
        quotient = tl.div_rn(x, divisor)
    else:
        # A remainder of small numbers would underflow. Powers of two move them away from zero without rounding.
        factor = tl.where(divisor < 8.673617379884035e-19, 1.8446744073709552e19, 1.0)
        scaled = divisor * factor
        reciprocal = tl.div_rn(1.0, scaled)
        quotient = (x * factor) * reciprocal
        # Divided by infinity, finite numbers are 0, not the NaN of the remainder.
        scaled = tl.where(scaled == float("inf"), 0.0, scaled)
        quotient = tl.fma(tl.fma(-quotient, scaled, x * factor), reciprocal, quotient)
    return quotient


@triton.jit
def round_e2m1(x: tl.tensor) -> tl.tensor:
    """float32 → its magnitude rounded to E2M1 (0, 0.5, 1, 1.5, 2, 3, 4, 6): to nearest, ties to even, saturated."""
    shifted, magic = _add_magic(x)
    return shifted - magic


@triton.jit
def round_e2m1_stochastic(x: tl.tensor, random: tl.tensor) -> tl.tensor:
    """Magnitudes on the E2M1 grid, saturated; random: numbers in [−½, ½) that are added in steps of the grid.

    A sum below zero becomes −0, as in the recorded codes of LongLive 2.0.
    """
    power = tl.minimum(tl.maximum(x.to(tl.int32, bitcast=True) & 0x7F800000, 0x3F800000), 0x40800000)
    step = power.to(tl.float32, bitcast=True) * 0.5
    # float32 has a spacing of 1 at 1.5 · 2^23, so the sum rounds to whole steps, ties to even.
    total = tl.div_rn(x, step) + random
    rounded = tl.minimum(((total + 12582912.0) - 12582912.0) * step, 6.0)
    sign = total.to(tl.uint32, bitcast=True) & 0x80000000
    return (rounded.to(tl.uint32, bitcast=True) | sign).to(tl.float32, bitcast=True)


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
