"""Linear layers with weights in NVFP4, a linear layer with a LoRA beside it, and how to find and replace layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...kernels import NVFP4, dequantize_nvfp4, quantize_fp8_rows, quantize_nvfp4
from .fp8 import FP8Layer, FP8Linear, FP8Rows, Rows
from .scratch import Scratch

Activations = Literal["float", "nvfp4"]
E4M3 = torch.float8_e4m3fn

__all__ = [
    "Activations",
    "BypassLinear",
    "FP8Linear",
    "NVFP4Linear",
    "Scratch",
    "base_of",
    "linear_layers",
    "products",
    "quantize_linears",
    "replace_linears",
    "shared_rows",
    "takes_fp8",
]


class NVFP4Linear(nn.Module):
    """x Wᵀ + b, `[..., K]` → `[..., N]`, with W in NVFP4, dequantised into the scratch buffer in each call.

    shape: (N, K). high_first: whether even columns are in the high nibble. activations: `nvfp4` quantises x too, by the
    4-over-6 rule with one amax over all tokens, multiplies in float32 and adds the bias in x's dtype (W4A4), as the
    recorded runs of LongLive 2.0 do.
    """

    def __init__(
        self,
        weight: NVFP4,
        shape: tuple[int, int],
        bias: Tensor | None,
        scratch: Scratch,
        *,
        high_first: bool = False,
        activations: Activations = "float",
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = shape
        self.register_buffer("values", weight.values)
        self.register_buffer("scales", weight.scales)
        self.register_buffer("amax", weight.amax)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.denominator, self.high_first, self.activations = weight.denominator, high_first, activations
        self._scratch = scratch

    def dequantized_weight(self, dtype: torch.dtype) -> Tensor:
        """The weight `[N, K]` in `dtype`, in the scratch buffer."""
        packed = NVFP4(self.get_buffer("values"), self.get_buffer("scales"), self.get_buffer("amax"), self.denominator)
        shape = (self.out_features, self.in_features)
        out = self._scratch.take(shape, dtype, packed.values.device)
        return dequantize_nvfp4(packed, shape, dtype, high_first=self.high_first, out=out)

    def forward(self, x: Tensor) -> Tensor:
        if self.activations == "float":
            return F.linear(x, self.dequantized_weight(x.dtype), self.bias)
        rows = x.reshape(-1, self.in_features)
        rounded = dequantize_nvfp4(quantize_nvfp4(rows), (len(rows), self.in_features), torch.float32)
        y = F.linear(rounded, self.dequantized_weight(torch.float32)).to(x.dtype)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features)


class BypassLinear(nn.Module):
    """A linear layer with a LoRA beside it: base(x) + strength · scale · up(down(x)), `[..., K]` → `[..., N]`.

    It is exact for any weight format. down: `[rank, K]`; None for a change of the whole weight, `up` `[N, K]`. up:
    `[N, rank]`. scale: alpha / rank. strength: may be changed at any time; with 0 the LoRA is not computed. base: may
    be such a layer itself.
    """

    def __init__(self, base: nn.Module, down: Tensor | None, up: Tensor, scale: float, strength: float = 1.0) -> None:
        super().__init__()
        self.base = base
        self.out_features, self.in_features = len(up), (up if down is None else down).shape[1]
        self.register_buffer("down", down)
        self.register_buffer("up", up)
        self.scale, self.strength = scale, strength

    def forward(self, x: Rows) -> Tensor:
        y: Tensor = self.base(x)
        if self.strength == 0:
            return y
        x = x.values if isinstance(x, FP8Rows) else x
        down: Tensor | None = self._buffers["down"]
        inner = (x if down is None else F.linear(x, down.to(x.dtype))).to(y.dtype)
        # In place and scaled by the product itself, so that the output is read and written once more, and no more.
        up = self.get_buffer("up").to(y.dtype)
        y.view(-1, self.out_features).addmm_(inner.reshape(-1, up.shape[1]), up.t(), alpha=self.strength * self.scale)
        return y


def takes_fp8(layer: nn.Module) -> bool:
    """Whether a layer multiplies in FP8 and has no LoRA beside it, which would need its input unrounded."""
    return isinstance(layer, FP8Layer) and layer.takes_rows and not layer.reads_unrounded


def shared_rows(x: Rows, *layers: nn.Module) -> Rows:
    """The input of several layers, quantised once if all of them multiply in FP8, with or without LoRAs beside them."""
    bases = [base_of(layer) for layer in layers]
    if isinstance(x, Tensor) and all(isinstance(base, FP8Layer) and base.takes_rows for base in bases):
        return FP8Rows.of(x)
    return x


def products(x: Rows, *layers: nn.Module) -> tuple[Tensor, ...]:
    """The outputs of several layers for one input; those of layers in FP8 are parts of one product's columns."""
    rows = shared_rows(x, *layers)
    plain = [layer for layer in layers if isinstance(layer, FP8Layer) and takes_fp8(layer)]
    if isinstance(rows, FP8Rows) and len(plain) == len(layers):
        return plain[0].products(rows, plain)
    return tuple(layer(rows) for layer in layers)


def base_of(layer: nn.Module) -> nn.Module:
    """The linear layer itself, without the LoRAs beside it."""
    while isinstance(layer, BypassLinear):
        layer = layer.base
    return layer


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the linear layers of a model by name, each with the LoRAs beside it."""
    layers: dict[str, nn.Module] = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "in_features") and name.split(".base")[0] not in layers:
            layers[name] = layer
    return layers


def replace_linears(model: nn.Module, make: Callable[[str, nn.Module], nn.Module | None]) -> int:
    """Replaces every linear layer for which `make(name, layer)` returns a new layer. Returns their number."""
    replaced = [(name, new) for name, layer in linear_layers(model).items() if (new := make(name, layer)) is not None]
    for name, new in replaced:
        model.set_submodule(name, new)
    return len(replaced)


def quantize_linears(model: nn.Module, format: Literal["nvfp4", "fp8"], *, activations: Activations = "float") -> int:
    """Quantises the linear layers of the blocks in place. Returns their number.

    format: `nvfp4` is dequantised in each call, `fp8` is multiplied with FP8 activations (W8A8), also where a
    checkpoint has the weights in FP8 already. activations: of the layers in nvfp4, see `NVFP4Linear`.
    """
    scratch = Scratch()

    def make(name: str, layer: nn.Module) -> nn.Module | None:
        if not name.startswith("blocks."):
            return None
        if format == "fp8" and isinstance(layer, FP8Linear) and layer.get_buffer("values").dtype == E4M3:
            layer.activations = "fp8"
            return layer
        if not isinstance(layer, nn.Linear):
            return None
        weight, bias = layer.weight.detach(), layer.bias.detach()  # every linear layer of Wan has a bias
        if format == "fp8":
            return FP8Linear(*quantize_fp8_rows(weight), bias, scratch, activations="fp8")
        shape = (layer.out_features, layer.in_features)
        return NVFP4Linear(quantize_nvfp4(weight), shape, bias, scratch, activations=activations)

    return replace_linears(model, make)
