"""Linear layers that keep their weight in few bits, and one that carries a LoRA beside its weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...kernels import NVFP4, dequantize_nvfp4, quantize_fp8_rows, quantize_nvfp4

Activations = Literal["float", "nvfp4"]


class Scratch:
    """Room for one decoded weight, shared by the layers of a model, which use it in turn."""

    def __init__(self) -> None:
        self._room: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def take(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """`shape` with undefined content; what was taken before is lost."""
        room = self._room.get((device, dtype))
        if room is None or room.numel() < shape[0] * shape[1]:
            room = torch.empty(shape[0] * shape[1], dtype=dtype, device=device)
            self._room[device, dtype] = room
        return room[: shape[0] * shape[1]].view(shape)


class NVFP4Linear(nn.Module):
    """x Wᵀ + b with W in NVFP4, decoded at each call into the scratch.

    activations: `nvfp4` rounds x too, by the 4-over-6 rule with one amax over all its tokens, multiplies in float32
    and adds the bias in x's dtype: W4A4 as the recorded runs of LongLive 2.0 have it.
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
        """The weight `[out, in]` decoded, in the scratch."""
        packed = NVFP4(self.get_buffer("values"), self.get_buffer("scales"), self.get_buffer("amax"), self.denominator)
        shape = (self.out_features, self.in_features)
        out = self._scratch.take(shape, dtype, packed.values.device)
        return dequantize_nvfp4(packed, shape, dtype, high_first=self.high_first, out=out)

    def forward(self, x: Tensor) -> Tensor:
        if self.activations == "float":
            return F.linear(x, self.dequantized_weight(x.dtype), self.bias)
        rows = x.reshape(-1, self.in_features)
        rounded = dequantize_nvfp4(quantize_nvfp4(rows), (rows.shape[0], self.in_features), torch.float32)
        y = F.linear(rounded, self.dequantized_weight(torch.float32)).to(x.dtype)
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], self.out_features)


class FP8Linear(nn.Module):
    """x Wᵀ + b with W in E4M3, a scale for each row `[out, 1]`.

    activations: `fp8` rounds x too, a scale for each of its rows taken at each call (W8A8, for cards with FP8 units);
    `float` decodes W into the scratch.
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
        """The weight `[out, in]` decoded, in the scratch."""
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
    """(x · x_scales) (w · w_scales)ᵀ: x `[M, K]` and w `[N, K]` E4M3, scales `[M, 1]` and `[N, 1]`; `[M, N]` of dtype.

    On cards with FP8 units by torch's row-wise matrix product (bf16 out), elsewhere in float32.
    """
    if x.is_cuda and torch.cuda.get_device_capability(x.device) >= (8, 9):
        # Torch has no public name for it before 2.10.
        y = torch._scaled_mm(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            x, w.t(), scale_a=x_scales, scale_b=w_scales.t(), out_dtype=torch.bfloat16, use_fast_accum=True
        )
        return y.to(dtype)
    return ((x.float() @ w.float().t()) * x_scales * w_scales.t()).to(dtype)


class BypassLinear(nn.Module):
    """A layer with a LoRA beside it, exact on any weight: base(x) + strength · alpha / rank · up(down(x)).

    `strength` may be changed at any time; 0 costs nothing.
    """

    def __init__(self, base: nn.Module, down: Tensor, up: Tensor, scale: float, strength: float = 1.0) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("down", down)
        self.register_buffer("up", up)
        self.scale, self.strength = scale, strength

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x)
        if self.strength == 0:
            return y
        change = F.linear(F.linear(x, self.get_buffer("down").to(x.dtype)), self.get_buffer("up").to(x.dtype))
        return y + self.strength * self.scale * change


def replace_linears(model: nn.Module, make: Callable[[str, nn.Module], nn.Module | None]) -> int:
    """Puts `make(name, layer)` in the place of every linear layer for which it gives one; how many."""
    linear = [(name, layer) for name, layer in model.named_modules() if hasattr(layer, "in_features")]
    made = [(name, new) for name, layer in linear if (new := make(name, layer)) is not None]
    for name, new in made:
        model.set_submodule(name, new)
    return len(made)


def quantize_linears(model: nn.Module, form: Literal["nvfp4", "fp8"]) -> int:
    """Rounds the weights of the blocks' linear layers in place: NVFP4 to be decoded, FP8 for W8A8; how many."""
    scratch = Scratch()

    def make(name: str, layer: nn.Module) -> nn.Module | None:
        if not name.startswith("blocks.") or not isinstance(layer, nn.Linear):
            return None
        weight, bias = layer.weight.detach(), layer.bias.detach()  # every Linear of Wan has a bias
        if form == "fp8":
            return FP8Linear(*quantize_fp8_rows(weight), bias, scratch, activations="fp8")
        return NVFP4Linear(quantize_nvfp4(weight), (layer.out_features, layer.in_features), bias, scratch)

    return replace_linears(model, make)
