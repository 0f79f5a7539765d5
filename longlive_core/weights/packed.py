"""Quantised layers of a checkpoint in ComfyUI's formats, as layers that compute with them where they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...kernels import NVFP4
from ..model.linears import Activations, FP8Linear, NVFP4Linear, Scratch


def packed_to(
    model: nn.Module,
    layer: str,
    form: str,
    state: Mapping[str, Tensor],
    shape: tuple[int, ...],
    scratch: Scratch,
    dtype: torch.dtype,
    activations: Activations = "float",
) -> None:
    """Puts the quantised layer `[out, in]` into the model, of its tensors in `state` (Wan's names).

    form: `nvfp4` or `fp8`; dtype: of the bias; activations: of an nvfp4 layer.
    """
    weight, bias = state[f"{layer}.weight"], state.get(f"{layer}.bias")
    bias = None if bias is None else bias.to(dtype)
    if form == "fp8":
        scales = [state[name] for name in (f"{layer}.weight_scale", f"{layer}.scale_weight") if name in state]
        scale = scales[0].float() if scales else torch.ones((), device=weight.device)
        module = FP8Linear(weight, scale.reshape(1, 1).expand(shape[0], 1).contiguous(), bias, scratch)
    else:
        scales = state[f"{layer}.weight_scale"].view(torch.float8_e4m3fn).flatten()
        # The file's one factor is amax / denominator.
        packed = NVFP4(weight, scales, state[f"{layer}.weight_scale_2"].float().reshape(()), 1.0)
        module = NVFP4Linear(packed, (shape[0], shape[1]), bias, scratch, high_first=True, activations=activations)
    model.set_submodule(layer, module)
