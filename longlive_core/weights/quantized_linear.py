"""Makes linear layers that compute with the quantised weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..model.linears import Activations, FP8Linear, NVFP4Linear, Scratch
from .packing import as_nvfp4
from .tensor_source import CheckpointError


def quantized_linear(
    layer: str,
    state: Mapping[str, Tensor],
    shape: tuple[int, ...],
    scratch: Scratch,
    dtype: torch.dtype,
    activations: Activations = "float",
) -> nn.Module:
    """Makes the linear layer of shape [out, in] from its tensors in `state`, which has Wan's names.

    dtype: dtype of the bias. activations: format of the inputs of an nvfp4 layer.
    Raises CheckpointError for a layer with a `pre_quant_scale`, because its inputs would have to be scaled.
    """
    parts = {name.removeprefix(f"{layer}."): tensor for name, tensor in state.items() if name.startswith(f"{layer}.")}
    if "pre_quant_scale" in parts:
        raise CheckpointError(
            f"layer {layer} has a pre_quant_scale, which only ComfyUI supports; dequantise the checkpoint with "
            "`longlive convert IN OUT --format bf16`"
        )
    bias = parts["bias"].to(dtype) if "bias" in parts else None
    if parts["weight"].dtype == torch.uint8:
        size = (shape[0], shape[1])
        return NVFP4Linear(as_nvfp4(parts), size, bias, scratch, high_first=True, activations=activations)
    scale = parts.get("weight_scale", parts.get("scale_weight", torch.ones((), device=parts["weight"].device)))
    return FP8Linear(parts["weight"], scale.float().reshape(-1, 1).expand(shape[0], 1).contiguous(), bias, scratch)
