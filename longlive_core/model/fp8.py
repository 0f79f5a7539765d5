"""Linear layers in FP8 (E4M3): rows of activations with a scale each, which several layers may share, and weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...kernels import quantize_fp8_rows
from .scratch import Scratch


class FP8Rows(NamedTuple):
    """Activations in E4M3, `[..., K]`, with a float32 scale for each row, `[..., 1]`.

    dtype: of what they round, and of products with them. unrounded: what they round, if a LoRA may need it.
    """

    codes: Tensor
    scales: Tensor
    dtype: torch.dtype
    unrounded: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor) -> FP8Rows:
        """Quantises x `[..., K]`."""
        codes, scales = quantize_fp8_rows(x.reshape(-1, x.shape[-1]))
        return cls(codes.view(x.shape), scales.view(*x.shape[:-1], 1), x.dtype, x)

    @property
    def values(self) -> Tensor:
        """What is rounded. Raises ValueError if it was never written, because no layer was to need it."""
        if self.unrounded is None:
            raise ValueError("these rows exist in FP8 only; make them for layers without LoRAs beside them")
        return self.unrounded

    def product(self, values: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
        """`fp8_matmul` with a weight `[N, K]`, → `[..., N]`."""
        rows, row_scales = self.codes.view(-1, self.codes.shape[-1]), self.scales.view(-1, 1)
        return fp8_matmul(rows, row_scales, values, scales, self.dtype, bias).view(*self.codes.shape[:-1], len(values))


Rows = Tensor | FP8Rows
"""Input of a linear layer; only layers in FP8 take `FP8Rows`."""


class FP8Layer(nn.Module, ABC):
    """A linear layer that can multiply `FP8Rows`, whoever keeps its weights; `[..., K]` → `[..., N]`."""

    in_features: int
    out_features: int

    @property
    @abstractmethod
    def takes_rows(self) -> bool:
        """Whether its input may be `FP8Rows`."""

    @property
    def reads_unrounded(self) -> bool:
        """Whether a LoRA of a host is beside it, which reads what its rows round."""
        return False

    @abstractmethod
    def products(self, rows: FP8Rows, layers: Sequence[FP8Layer]) -> tuple[Tensor, ...]:
        """The outputs of several layers for one input, this one first: parts of one product's columns if it can."""


class FP8Linear(FP8Layer):
    """x Wᵀ + b, `[..., K]` → `[..., N]`, with W in E4M3, `[N, K]`, and a float32 scale for each row, `[N, 1]`.

    activations: `fp8` quantises x too, with a scale for each row (W8A8, for cards with FP8 units), unless it is so
    already; `float` dequantises W into the scratch buffer in each call.
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

    @property
    def takes_rows(self) -> bool:
        """See `FP8Layer`."""
        return self.activations == "fp8"

    def dequantized_weight(self, dtype: torch.dtype) -> Tensor:
        """The weight `[N, K]` in `dtype`, in the scratch buffer."""
        values = self.get_buffer("values")
        out = self._scratch.take((self.out_features, self.in_features), dtype, values.device)
        return out.copy_(values).mul_(self.get_buffer("scales"))

    def forward(self, x: Rows) -> Tensor:
        if isinstance(x, Tensor):
            if self.activations == "float":
                return F.linear(x, self.dequantized_weight(x.dtype), self.bias)
            x = FP8Rows.of(x)
        return x.product(self.get_buffer("values"), self.get_buffer("scales"), self.bias)

    def products(self, rows: FP8Rows, layers: Sequence[FP8Layer]) -> tuple[Tensor, ...]:
        """See `FP8Layer`."""
        stacked = [layer for layer in layers if isinstance(layer, FP8Linear)]
        if len(stacked) < len(layers):
            return tuple(layer(rows) for layer in layers)
        return stacked_product(rows, stacked)


def has_fp8_products(device: torch.device) -> bool:
    """Whether a device multiplies E4M3 itself: NVIDIA's from compute capability 8.9 on (Ada, Hopper, Blackwell)."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 9)


def fp8_matmul(
    x: Tensor, x_scales: Tensor, w: Tensor, w_scales: Tensor, dtype: torch.dtype, bias: Tensor | None = None
) -> Tensor:
    """(x · x_scales) (w · w_scales)ᵀ + bias, `[M, N]` in `dtype`.

    x `[M, K]` and w `[N, K]` E4M3, scales `[M, 1]`, `[N, 1]`, bias `[N]`. On cards with FP8 units it is PyTorch's
    row-wise scaled product, which adds the bias before it rounds to bf16; elsewhere it is in float32.
    """
    if has_fp8_products(x.device):
        # PyTorch has no public function for it before 2.10.
        y = torch._scaled_mm(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            x,
            w.t(),
            scale_a=x_scales,
            scale_b=w_scales.t(),
            bias=None if bias is None else bias.to(torch.bfloat16),
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return y.to(dtype)
    y = (x.float() @ w.float().t()) * x_scales * w_scales.t()
    return (y if bias is None else y + bias.float()).to(dtype)


def stacked_product(rows: FP8Rows, layers: Sequence[FP8Linear]) -> tuple[Tensor, ...]:
    """The outputs of several layers by one product: views of its columns, whose rows have the stride of all of them.

    The first call lays the weights of the layers out as one matrix, of which each layer keeps its own rows.
    """
    values, scales = _stacked(layers, "values"), _stacked(layers, "scales")
    with_bias = all(layer.bias is not None for layer in layers)
    if not with_bias and any(layer.bias is not None for layer in layers):
        return tuple(layer(rows) for layer in layers)
    y = rows.product(values, scales, _stacked(layers, "bias") if with_bias else None)
    return y.split([layer.out_features for layer in layers], dim=-1)


def _stacked(layers: Sequence[FP8Linear], name: str) -> Tensor:
    """The tensors of this name one after another, without a copy if they lie so in memory, as they do afterwards."""
    parts: list[Tensor] = [getattr(layer, name).detach() for layer in layers]
    first, start = parts[0], parts[0].storage_offset()
    adjacent = True
    for part in parts:
        same = part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        adjacent = adjacent and same and part.storage_offset() == start and part.is_contiguous()
        start += part.numel()
    if adjacent:
        return first.as_strided((sum(len(part) for part in parts), *first.shape[1:]), first.stride())
    whole = torch.cat(parts)
    for layer, part in zip(layers, whole.split([len(part) for part in parts]), strict=True):
        setattr(layer, name, nn.Parameter(part, requires_grad=False) if name == "bias" else part)
    return whole
