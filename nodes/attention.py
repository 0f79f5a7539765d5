"""The attention function of a MODEL: the host's, a node's or ours, and FP8 where the loader was told so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import comfy.model_patcher
import torch
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from torch import Tensor

from ..longlive_core.model.attention import Attention, cuda_attention, prefers_cudnn, torch_attention
from ..longlive_core.model.fp8_gate import AttentionFormat

# The attachment of a MODEL with the number format of its self-attention.
FORMAT: Final = "longlive_attention"


def set_attention_format(model: comfy.model_patcher.ModelPatcher, wanted: AttentionFormat) -> None:
    """Attaches to a MODEL the number format of its self-attention."""
    model.set_attachments(FORMAT, wanted)


def attention_format(model: comfy.model_patcher.ModelPatcher) -> AttentionFormat:
    """The number format of a MODEL's self-attention; see `choose_attention`."""
    return model.get_attachment(FORMAT) or "usual"


def usual_attention(device: torch.device, options: Mapping[str, Any]) -> Attention:
    """The attention function of the host or of a node that overrides it; q, k, v and output `[B, L, heads, D]`.

    options: the MODEL's `transformer_options`. Where neither the user nor a node has chosen one, it is the fastest that
    PyTorch has on the device: the host lets FlashAttention-2 go before cuDNN.
    """
    if "optimized_attention_override" not in options:
        if device.type == "cpu":
            return torch_attention
        if optimized_attention is attention_pytorch and prefers_cudnn(device):
            return cuda_attention

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = q.shape[2]
        merged = optimized_attention(q.flatten(2), k.flatten(2), v.flatten(2), heads, transformer_options=options)
        return merged.unflatten(2, (heads, -1))

    return attend
