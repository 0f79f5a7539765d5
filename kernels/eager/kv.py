"""NVFP4 slots of the KV cache of one layer: blocks of tokens are quantised into slots and dequantised from them.

Scales are not swizzled and even columns are in the low nibble. All writes are in place, without synchronisation.
"""

from collections.abc import Sequence

from torch import Tensor

from ..nvfp4_format import BLOCK, NVFP4, denominator_of
from .nvfp4 import dequantize_nvfp4, quantize_nvfp4


def append_nvfp4(x: Tensor, values: Tensor, scales: Tensor, amax: Tensor, slot: int, rule: str = "mse") -> None:
    """Quantises a block of tokens into a slot. Each batch element is one matrix `[T · H, D]` with its own amax.

    x `[B, T, H, D]` with D a multiple of 16; values `[B, S, T · H · D / 2]` uint8, scales `[B, S, T · H · D / 16]`
    float8_e4m3fn, amax `[B, S]` float32. Other slots do not change. Raises ValueError for an unknown rule.
    """
    for element, matrix in enumerate(x.flatten(1, 2)):
        packed = quantize_nvfp4(matrix, rule, swizzled=False)
        values[element, slot] = packed.values.view(-1)
        scales[element, slot] = packed.scales.view(-1)
        amax[element, slot] = packed.amax


def read_nvfp4(values: Tensor, scales: Tensor, amax: Tensor, rule: str, slots: Sequence[int], out: Tensor) -> None:
    """Dequantises slots into their tokens of `out`, rounded once to its dtype. Tokens of other slots do not change.

    values, scales, amax, rule: as in `append_nvfp4`. out: `[B, S · T, H, D]`, with slot s at tokens s · T to
    (s + 1) · T − 1. Raises ValueError for an unknown rule.
    """
    denominator = denominator_of(rule)
    channels = out.shape[-1]
    for element, tokens in enumerate(out.unflatten(1, (values.shape[1], -1))):
        for slot in slots:
            packed = NVFP4(
                values[element, slot].view(-1, channels // 2),
                scales[element, slot].view(-1, channels // BLOCK),
                amax[element, slot],
                denominator,
            )
            matrix = tokens[slot].view(-1, channels)
            dequantize_nvfp4(packed, (len(matrix), channels), out.dtype, swizzled=False, out=matrix)
