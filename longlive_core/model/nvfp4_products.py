"""The three matrix products of a linear layer that trains in NVFP4, with quantised operands, in LongLive 2.0's order.

    product   left                                      right
    output    x, groups of 16 along its width           W, 16×16 tiles
    dx        dy, rounded stochastically                Wᵀ, 16×16 tiles, quantised again
    dW        dyᵀ, transformed, rounded stochastically  xᵀ, from its quantised values, transformed, quantised again

Tiles make W and Wᵀ quantise alike. "Transformed" is by Hadamard's matrix in groups of 16 tokens, which spreads outliers
and cancels in the product. Inputs are bf16, sums float32, results bf16. Source: NVIDIA, "Pretraining Large Language
Models with NVFP4", 2025 (arXiv 2509.25149), and the training code of LongLive 2.0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels import NVFP4, RULES, dequantize_nvfp4, hadamard16, quantize_nvfp4, quantize_nvfp4_stochastic
from .fp4_units import has_fp4_units, multiply_fp4

Rule = Literal["static_6", "static_4", "mse", "mae", "abs_max"]
Rounding = Literal["unbiased", "reference", "nearest"]
ROUNDINGS: tuple[str, ...] = get_args(Rounding)
GROUP = 16
SIGNS = (1, 1, 1, -1, 1, -1, -1, -1, -1, -1, -1, 1, -1, 1, -1, -1)
"""Signs of the Hadamard transform, those of LongLive 2.0 in every layer."""


@dataclass(frozen=True, slots=True)
class NVFP4Settings:
    """Training in NVFP4; the defaults are those of LongLive 2.0's autoregressive stage, except for unbiased rounding.

    weights, activations, gradients: rules for the scales of each: static_6, static_4, or those of Four Over Six: mse,
    mae, abs_max. rounding: of gradients: unbiased, which chooses a scale by the errors of nearest rounding and then
    rounds stochastically; reference, as LongLive 2.0, which compares values that are rounded already and is biased; or
    nearest. hadamard: transform the operands of the gradient of the weights. Raises ValueError for another rule.
    """

    weights: Rule = "static_6"
    activations: Rule = "mse"
    gradients: Rule = "mse"
    rounding: Rounding = "unbiased"
    hadamard: bool = True

    def __post_init__(self) -> None:
        for name, known in (("weights", RULES), ("activations", RULES), ("gradients", RULES), ("rounding", ROUNDINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"nvfp4: {name} = {getattr(self, name)!r} must be one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Operand:
    """A quantised matrix of `shape`. swizzled: whether its scales have the layout of FP4 units."""

    packed: NVFP4
    shape: tuple[int, int]
    swizzled: bool

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix in `dtype`."""
        return dequantize_nvfp4(self.packed, self.shape, dtype, swizzled=self.swizzled)

    def saved_input(self) -> Tensor:
        """The matrix in bf16, as LongLive 2.0 dequantises saved inputs: (value · scale) · (amax / denominator)."""
        factor = self.packed.amax / self.packed.amax.new_full((), self.packed.denominator)
        packed = self.packed._replace(amax=factor, denominator=1.0)
        return dequantize_nvfp4(packed, self.shape, torch.bfloat16, swizzled=self.swizzled)


Uniforms = Callable[[tuple[int, ...], torch.device], Tensor]
"""Returns random numbers in [0, 1), float32 of a shape on a device."""


@dataclass(frozen=True, slots=True)
class NVFP4Products:
    """Quantises the operands of the three products; x `[M, K]`, w `[N, K]`, dy `[M, N]`, all bf16.

    K and N must be multiples of 16; M may be any number. signs: of the Hadamard transform.
    """

    settings: NVFP4Settings = NVFP4Settings()
    signs: tuple[int, ...] = SIGNS

    def input(self, x: Tensor) -> Operand:
        """x, for the output."""
        return self._nearest(x, self.settings.activations)

    def weight(self, w: Tensor) -> Operand:
        """w, for the output, or its transpose for the gradient of the input."""
        return self._nearest(w, self.settings.weights, tile=True)

    def gradient(self, dy: Tensor, uniforms: Uniforms) -> Operand:
        """dy, for the gradient of the input; or what `over_tokens` made of it, for that of the weight."""
        settings = self.settings
        if settings.rounding == "nearest":
            return self._nearest(dy, settings.gradients)
        unbiased = settings.rounding == "unbiased"
        both = not unbiased and settings.gradients not in ("static_6", "static_4")
        random = uniforms((2, *dy.shape) if both else tuple(dy.shape), dy.device)
        swizzled = has_fp4_units(dy.device)
        packed = quantize_nvfp4_stochastic(dy, random, settings.gradients, unbiased=unbiased, swizzled=swizzled)
        return Operand(packed, (dy.shape[0], dy.shape[1]), swizzled)

    def over_tokens(self, rows: Tensor) -> Tensor:
        """Rows of tokens `[M, K]` → `[K, M']`, transformed; M' is M with zeros up to a multiple of 16."""
        columns = F.pad(rows.t(), (0, -len(rows) % GROUP))
        return hadamard16(columns, columns.new_tensor(self.signs)) if self.settings.hadamard else columns.contiguous()

    def _nearest(self, x: Tensor, rule: Rule, *, tile: bool = False) -> Operand:
        swizzled = has_fp4_units(x.device)
        packed = quantize_nvfp4(x, rule, tile=tile, swizzled=swizzled)
        return Operand(packed, (x.shape[0], x.shape[1]), swizzled)


def multiply(left: Operand, right: Operand) -> Tensor:
    """left `[M, K]` · rightᵀ, right `[N, K]` → bf16 `[M, N]`: on FP4 units where there are some, else in float32."""
    if left.swizzled:
        return multiply_fp4(left.packed, right.packed)[: left.shape[0], : right.shape[0]]
    # In mixed precision, autocast would round the operands of a float32 product.
    with torch.autocast(left.packed.values.device.type, enabled=False):
        return (left.dequantized() @ right.dequantized().t()).bfloat16()
