"""E4M3 weights with a scale for each row as a quantised tensor of the host, which moves, counts and frees it as one."""

from __future__ import annotations

from typing import Any, Final

import torch
from comfy.quant_ops import QuantizedLayout, QuantizedTensor, TensorCoreFP8Layout, register_layout_class
from torch import Tensor

from ..kernels import quantize_fp8_rows

# The host finds the layout of a tensor by this name.
ROW_FP8: Final = "LongLiveRowFP8Layout"


class RowFP8Layout(QuantizedLayout):
    """`quantize_fp8_rows` of a weight `[N, K]`: E4M3 of this shape, and float32 scales `[N, 1]`.

    The host's own FP8 has one scale for the whole weight, with which its products round more.
    """

    @classmethod
    def quantize(cls, tensor: Tensor, **_: object) -> tuple[Tensor, Any]:
        """Returns the numbers, and the host's parameters of a layout."""
        codes, scales = quantize_fp8_rows(tensor)
        return codes, _params(codes, scales, tensor.dtype)

    @classmethod
    def dequantize(cls, qdata: Tensor, params: Any) -> Tensor:  # noqa: ANN401 (the host's)
        """The weight in the dtype of the model."""
        return (qdata.float() * params.scale).to(params.orig_dtype)

    @classmethod
    def get_plain_tensors(cls, qtensor: QuantizedTensor) -> tuple[Tensor, Tensor]:
        """The numbers and the scales."""
        return qtensor._qdata, qtensor._params.scale

    @classmethod
    def state_dict_tensors(cls, qdata: Tensor, params: Any) -> dict[str, Tensor]:  # noqa: ANN401 (the host's)
        """What is added to the name of the weight -> tensor, as in ComfyUI's files."""
        return {"": qdata, "_scale": params.scale}


def row_fp8(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> QuantizedTensor:
    """A weight of the host. codes: E4M3 `[N, K]`. scales: float32 `[N, 1]`. dtype: that of the model."""
    register_layout_class(ROW_FP8, RowFP8Layout)
    return QuantizedTensor(codes, ROW_FP8, _params(codes, scales, dtype))


def row_fp8_parts(weight: QuantizedTensor) -> tuple[Tensor, Tensor]:
    """The numbers `[N, K]` and scales `[N, 1]` of such a weight."""
    return RowFP8Layout.get_plain_tensors(weight)


def is_row_fp8(weight: object) -> bool:
    """Whether a weight is such a one."""
    return isinstance(weight, QuantizedTensor) and weight._layout_cls == ROW_FP8


def _params(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Any:  # noqa: ANN401 (the host's)
    return TensorCoreFP8Layout.Params(scale=scales, orig_dtype=dtype, orig_shape=tuple(codes.shape))
