"""The attention functions of the arms, by kind; those that this machine or this build lacks, as the reason."""

from __future__ import annotations

from typing import Literal

import torch
from longlive.longlive_core.model import CausalWan
from longlive.longlive_core.model.attention import Attention, AttentionByLayer, default_attention, torch_attention
from longlive.longlive_core.model.fp8_attention import find_fp8_attention
from longlive.longlive_core.model.fp8_gate import AttentionChoice, choose_attention
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from .part import Skipped
from .timing import DEVICE

AttentionKind = Literal["flash", "default", "host", "best", "fp8"]
# ComfyUI 0.33 sets this priority where the user chose no attention library.
HOST_ORDER = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def find_attention(kind: str, head_dim: int) -> Attention | str:
    """The attention of a kind for heads of this width, or why there is none."""
    device = torch.device(DEVICE)
    if kind == "fp8":
        return find_fp8_attention(device, head_dim) or "no FP8 attention is installed for this device"
    return {
        "flash": flash_attention,
        "default": torch_attention,
        "host": host_attention,
        "best": default_attention(device),
    }[kind]


def attention_of_model(model: CausalWan, kind: str) -> AttentionChoice:
    """The attention of a kind for a model: FP8 as in a film, in the layers where the gate lets it.

    Raises Skipped if there is none, or if the gate lets it into no layer.
    """
    found = find_attention(kind, model.config.head_dim)
    if isinstance(found, str):
        raise Skipped(found)
    if kind != "fp8":
        return AttentionChoice(found)
    choice = choose_attention(model, default_attention(torch.device(DEVICE)), "fp8")
    if not isinstance(choice.function, AttentionByLayer):
        raise Skipped(*choice.notes)
    return choice


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """FlashAttention-2, as in the reference. q, k, v and the result: `[B, L, H, D]`."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return torch_attention(q, k, v)


def host_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """ComfyUI's own path: heads merged for its call and split in it again, FlashAttention-2 before cuDNN."""
    heads = q.shape[2]
    q, k, v = (x.flatten(2).unflatten(2, (heads, -1)) for x in (q, k, v))
    with sdpa_kernel(HOST_ORDER, set_priority=True):
        return torch_attention(q, k, v).reshape(*q.shape[:2], -1).unflatten(2, (heads, -1))
