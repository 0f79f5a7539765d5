"""Linear layers with quantised weights, and a linear layer with a LoRA beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...kernels import NVFP4, dequantize_nvfp4, quantize_fp8_rows, quantize_nvfp4

Activations = Literal["float", "nvfp4"]


class Scratch:
    """A buffer for one dequantised weight, which the layers of a model share because they run one after another."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def take(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor of `shape`. It overwrites the one that was taken before."""
        size = shape[0] * shape[1]
        buffer = self._buffers.get((device, dtype))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[device, dtype] = torch.empty(size, dtype=dtype, device=device)
        return buffer[:size].view(shape)


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


class FP8Linear(nn.Module):
    """x Wᵀ + b, `[..., K]` → `[..., N]`, with W in E4M3, `[N, K]`, and a float32 scale for each row, `[N, 1]`.

    activations: `fp8` quantises x too, with a scale for each row (W8A8, for cards with FP8 units); `float` dequantises
    W into the scratch buffer in each call.
    """

    def __init__(
        self,
        values: Tensor,
        scales: Tensor,
        bias: Tensor | None,
        scratch: Scratch,
        *,
        activations: Literal["float", "fp8"] = "float",
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = values.shape
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.activations = activations
        self._scratch = scratch

    def dequantized_weight(self, dtype: torch.dtype) -> Tensor:
        """The weight `[N, K]` in `dtype`, in the scratch buffer."""
        values = self.get_buffer("values")
        out = self._scratch.take((self.out_features, self.in_features), dtype, values.device)
        return out.copy_(values).mul_(self.get_buffer("scales"))

    def forward(self, x: Tensor) -> Tensor:
        if self.activations == "float":
            return F.linear(x, self.dequantized_weight(x.dtype), self.bias)
        rows, scales = quantize_fp8_rows(x.reshape(-1, self.in_features))
        y = fp8_matmul(rows, scales, self.get_buffer("values"), self.get_buffer("scales"), x.dtype)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features)


def fp8_matmul(x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, dtype: torch.dtype) -> Tensor:
    """(x · x_scales) (w · w_scales)ᵀ, `[M, N]` in `dtype`; x `[M, K]` and w `[N, K]` E4M3, scales `[M, 1]`, `[N, 1]`.

    On cards with FP8 units it is PyTorch's row-wise scaled product, which returns bf16; elsewhere it is in float32.
    """
    if x.is_cuda and torch.cuda.get_device_capability(x.device) >= (8, 9):
        # PyTorch has no public function for it before 2.10.
        y = torch._scaled_mm(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            x, w.t(), scale_a=x_scales, scale_b=w_scales.t(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
        return y.to(dtype)
    return ((x.float() @ w.float().t()) * x_scales * w_scales.t()).to(dtype)


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

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if self.strength == 0:
            return y
        down: Tensor | None = self._buffers["down"]
        inner = x if down is None else F.linear(x, down.to(x.dtype))
        return y + self.strength * self.scale * F.linear(inner, self.get_buffer("up").to(x.dtype))


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


def quantize_linears(model: nn.Module, format: Literal["nvfp4", "fp8"]) -> int:
    """Quantises the linear layers of the blocks in place. Returns their number.

    format: `nvfp4` is dequantised in each call, `fp8` is multiplied with FP8 activations (W8A8).
    """
    scratch = Scratch()

    def make(name: str, layer: nn.Module) -> nn.Module | None:
        if not name.startswith("blocks.") or not isinstance(layer, nn.Linear):
            return None
        weight, bias = layer.weight.detach(), layer.bias.detach()  # every linear layer of Wan has a bias
        if format == "fp8":
            return FP8Linear(*quantize_fp8_rows(weight), bias, scratch, activations="fp8")
        return NVFP4Linear(quantize_nvfp4(weight), (layer.out_features, layer.in_features), bias, scratch)

    return replace_linears(model, make)
