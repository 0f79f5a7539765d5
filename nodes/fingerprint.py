"""Fingerprints of a MODEL, its text and a VAE: fast for 10 GB of weights, and the same after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import comfy.model_patcher
import comfy.sd
from comfy.quant_ops import QuantizedTensor
from torch import Tensor

from ..longlive_core.take.settings import fingerprint, tensor_bytes
from .attention import attention_format
from .lora_beside import loras_beside

# A weight with more values than SMALL is sampled at ROWS rows.
SMALL, ROWS = 4096, 4


def weights_fingerprint(model: comfy.model_patcher.ModelPatcher) -> str:
    """Computes a fingerprint of every weight (name, shape, dtype, some rows), every LoRA, compute dtype and attention.

    It does not depend on the device or on whether the model is loaded: for a merged LoRA it uses the original weight
    and the LoRA's own tensors and strength.
    """
    return fingerprint(_weights(model))


def vae_fingerprint(vae: comfy.sd.VAE) -> str:
    """Computes a fingerprint of what decides the pixels that a VAE decodes: its weights, dtype and kind of device."""

    def parts() -> Iterator[bytes]:
        yield f"{type(vae.first_stage_model).__name__} {vae.vae_dtype} {vae.device.type}".encode()
        yield from _parts(sorted(vae.first_stage_model.state_dict().items(), key=lambda item: item[0]))

    return fingerprint(parts())


def text_fingerprint(prompts: Iterable[str], embeddings: Mapping[str, Tensor]) -> str:
    """Computes a fingerprint of the embeddings `[L, text_dim]` of all prompts, which identifies the text encoder."""

    def parts() -> Iterator[bytes]:
        for prompt in dict.fromkeys(prompts):
            value = embeddings[prompt]
            yield f"{prompt} {tuple(value.shape)} {value.dtype}".encode()
            yield tensor_bytes(value)

    return fingerprint(parts())


def _weights(model: comfy.model_patcher.ModelPatcher) -> Iterator[bytes]:
    inner = model.model
    yield str(inner.get_dtype_inference()).encode()
    if attention_format(model) != "usual":
        yield attention_format(model).encode()
    tensors = {**dict(inner.diffusion_model.named_parameters()), **dict(inner.diffusion_model.named_buffers())}
    for name in sorted(tensors):
        key = f"diffusion_model.{name}"
        original = model.backup.get(key)
        yield from _parts((name, tensors[name] if original is None else original.weight, model.patches.get(key)))
    yield from _parts(sorted(_beside(model), key=lambda layer: layer[0]))


def _beside(model: comfy.model_patcher.ModelPatcher) -> Iterator[tuple[str, str, list[object], float]]:
    """Yields layer, kind, weights and strength of the LoRAs that run beside layers."""
    for adapters in loras_beside(model):
        for name, (adapter, strength) in adapters.items():
            # The host casts them to the layer's dtype when it loads them.
            dtype = model.model.get_submodule(name).weight.dtype
            weights = [weight.to(dtype) if isinstance(weight, Tensor) else weight for weight in adapter.weights]
            yield name, type(adapter).__name__, weights, strength


def _parts(value: object) -> Iterator[bytes]:
    """Yields the bytes that identify a value: rows of a tensor, weights of an adapter, the name of a function."""
    if isinstance(value, QuantizedTensor):
        yield type(value).__name__.encode()
        yield from _parts(sorted(value.state_dict().items(), key=lambda item: item[0]))
    elif isinstance(value, Tensor):
        yield f"{tuple(value.shape)} {value.dtype}".encode()
        whole = value.numel() <= SMALL or value.ndim < 2
        yield from map(tensor_bytes, [value] if whole else [value[len(value) * row // ROWS] for row in range(ROWS)])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    elif hasattr(value, "weights"):
        yield type(value).__name__.encode()
        yield from _parts(value.weights)
    elif value is None or isinstance(value, str | int | float):
        yield repr(value).encode()
    else:
        yield str(getattr(value, "__qualname__", type(value).__qualname__)).encode()
