"""Scales and rounding of NVFP4 in plain PyTorch, on blocks of float32 magnitudes.

Shapes: magnitudes `[G, H, C, 16]`, where 16 · H values share a scale; scales `[G, 1, C, 1]` in float32, all of them
numbers of E4M3. The order of operations is part of the format, see `nvfp4.py`.
"""

import torch
from torch import Tensor

from ..nvfp4_format import MIN_AMAX, SATURATION


def encode_factor(amax: Tensor, denominator: float) -> Tensor:
    """Denominator / amax; zero, which makes all scales and all codes zero, for an amax below the limit."""
    return torch.where(amax >= MIN_AMAX, amax.new_full((), denominator) / amax, 0.0)


def candidate_scales(magnitudes: Tensor, encode: Tensor, rule: str) -> tuple[Tensor, ...]:
    """Scales by the rule, `[G, 1, C, 1]`: one, or for a 4-over-6 rule those of 6 and of 4."""
    peaks = magnitudes.amax((1, 3), keepdim=True)
    base = peaks / encode.new_full((), 4.0 if rule == "static_4" else 6.0) * encode
    return (_e4m3(base),) if rule in ("static_6", "static_4") else (_e4m3(base), _e4m3(1.5 * base))


def choose_scales(magnitudes: Tensor, encode: Tensor, amax: Tensor, rule: str, denominator: float) -> Tensor:
    """Scales by the rule and the errors of nearest rounding, `[G, 1, C, 1]`."""
    scales, *smaller = candidate_scales(magnitudes, encode, rule)
    if not smaller:
        return scales
    errors: list[Tensor] = []
    for candidate in (smaller[0], scales):
        shifted, magic = add_magic(magnitudes, candidate, encode)
        errors.append(block_errors(shifted.sub_(magic), candidate, magnitudes, amax, rule, denominator))
    return torch.where(errors[0] < errors[1], smaller[0], scales)


def unsaturated(scales: Tensor, magnitudes: Tensor, encode: Tensor) -> Tensor:
    """Scales of which those that cannot hold the largest magnitude are replaced by the next larger one of E4M3."""
    peaks = magnitudes.amax((1, 3), keepdim=True)
    scaled = peaks * reciprocals(scales, encode)
    short = (scaled > SATURATION) | ((scales == 0) & (peaks > 0))
    larger = (scales.to(torch.float8_e4m3fn).view(torch.uint8) + 1).clamp_(max=0x7E)
    return torch.where(short, larger.view(torch.float8_e4m3fn).float(), scales)


def round_stochastic(magnitudes: Tensor, scales: Tensor, encode: Tensor, random: Tensor) -> Tensor:
    """Scaled magnitudes on the E2M1 grid; random: numbers in [−½, ½) that are added in steps of the grid.

    A sum below zero becomes −0, as in the recorded codes of LongLive 2.0.
    """
    scaled = magnitudes * reciprocals(scales, encode)
    powers = (scaled.view(torch.int32) & 0x7F800000).clamp_(min=0x3F800000, max=0x40800000)
    steps = powers.view(torch.float32) / 2
    return torch.round(scaled / steps + random).mul_(steps).clamp_(max=6.0)


def codes_of(shifted: Tensor, signs: Tensor, scales: Tensor) -> Tensor:
    """E2M1 codes uint8 of magnitudes plus their magic number; signs: int32, the signs of the values in the top bit."""
    bits = shifted.view(torch.int32)
    # The biased exponent is 149 + e (see `add_magic`), and the low mantissa bits count steps of the grid from zero.
    codes = (bits >> 22).sub_(298).add_(bits & 15)
    return codes.bitwise_or_((signs >> 28).bitwise_and_(8)).mul_(scales > 0).to(torch.uint8)


def _e4m3(x: Tensor) -> Tensor:
    return x.clamp(max=448.0).to(torch.float8_e4m3fn).float()


def block_errors(
    rounded: Tensor, scales: Tensor, magnitudes: Tensor, amax: Tensor, rule: str, denominator: float
) -> Tensor:
    """Quantisation error by the rule, `[G, 1, C, 1]`, over the values of each scale.

    rounded: scaled magnitudes on the E2M1 grid, `[G, H, C, 16]`, which are overwritten; magnitudes: the same unscaled.
    """
    error = rounded.mul_(scales).mul_(amax).div_(amax.new_full((), denominator)).sub_(magnitudes)
    if rule == "mse":
        return error.square_().sum((1, 3), keepdim=True)
    return error.abs_().sum((1, 3), keepdim=True) if rule == "mae" else error.abs_().amax((1, 3), keepdim=True)


def reciprocals(scales: Tensor, encode: Tensor) -> Tensor:
    """The factor of values before rounding; 0 if the scale is 0."""
    return torch.where(scales > 0, (encode.reciprocal() * scales).reciprocal(), 0.0)


def add_magic(magnitudes: Tensor, scales: Tensor, encode: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled magnitudes plus a magic number that rounds them to the E2M1 grid, and the magic number.

    The grid at a magnitude m has the step 2^e / 2, where 2^e is 1, 2 or 4, the power of two at or below m (at least 1).
    The magic number is 2^(e + 22), where float32 has just this spacing, so the sum rounds m to nearest, ties to even.
    """
    scaled = (magnitudes * reciprocals(scales, encode)).clamp_(max=6.0)
    magic = magic_of(scaled)
    return scaled.add_(magic), magic


def magic_of(scaled: Tensor) -> Tensor:
    """The magic number of `add_magic` for each scaled magnitude."""
    powers = (scaled.view(torch.int32) & 0x7F800000).clamp_(min=0x3F800000).add_(22 << 23)
    return powers.view(torch.float32)
