"""Formats of weights and KV cache in which LongLive Mini is evaluated, and their sizes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch

from ..memory import MemoryConfig, PoolSpec
from ..mini import LATENT_SIZE, Mini
from ..model.attention import Attention, default_attention
from ..model.fp8_gate import AttentionFormat, choose_attention
from ..model.linears import Activations, quantize_linears
from ..types import BLOCK_FRAMES, LatentShape


@dataclass(frozen=True, slots=True)
class Format:
    """Formats of the KV cache, and of the weights of the layers' linear projections and what they are multiplied with.

    activations: of NVFP4 weights, see `NVFP4Linear`. attention: see `choose_attention`.
    """

    name: str
    kv: str = "bf16"
    weights: Literal["bf16", "fp8", "nvfp4"] = "bf16"
    activations: Activations = "float"
    attention: AttentionFormat = "usual"

    @property
    def memory(self) -> MemoryConfig:
        """The default configuration with this format of the KV cache."""
        return MemoryConfig(kv_format=self.kv)


BF16: Final = Format("bf16")
FORMATS: Final = (
    Format("fp8 KV", kv="fp8"),
    Format("NVFP4 KV", kv="nvfp4"),
    Format("q2 KV", kv="q2"),
    Format("FP8 weights and activations", weights="fp8"),
    Format("FP8 attention", attention="fp8"),
    Format("FP8 everywhere", kv="fp8", weights="fp8", attention="fp8"),
    Format("NVFP4 weights", weights="nvfp4"),
    Format("NVFP4 weights and KV", kv="nvfp4", weights="nvfp4"),
    Format("NVFP4 W4A4 and KV", kv="nvfp4", weights="nvfp4", activations="nvfp4"),
)


def quantize_weights(mini: Mini, storage: Format) -> Mini:
    """A copy of the model with quantised linear projections; the model itself for bf16, its format on disk."""
    if storage.weights == "bf16":
        return mini
    model = deepcopy(mini.model)
    quantize_linears(model, storage.weights, activations=storage.activations)
    return replace(mini, model=model)


def attention_in(mini: Mini, storage: Format) -> Attention:
    """The attention function of a model in a format. On a CPU, FP8 attention is emulated."""
    return choose_attention(mini.model, default_attention(mini.model.device), storage.attention).function


def weight_bytes(mini: Mini, storage: Format) -> int:
    """Bytes of the transformer's tensors, with those that are not quantised in bf16."""
    model = quantize_weights(replace(mini, model=deepcopy(mini.model).to(torch.bfloat16)), storage).model
    return sum(tensor.untyped_storage().nbytes() for tensor in model.state_dict().values())


def kv_bytes(mini: Mini, storage: Format) -> int:
    """Bytes of the KV cache of a film at the model's size."""
    model, memory = mini.model.config, storage.memory
    shape = memory.pool_shape(model, LatentShape(1, model.channels, BLOCK_FRAMES, *LATENT_SIZE))
    (pool,) = PoolSpec(storage.kv, shape, torch.float32, memory.smoothing).make(torch.device("cpu"))
    return sum(tensor.numel() * tensor.element_size() for tensor in pool.tensors(shape.slots))
