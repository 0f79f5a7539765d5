"""What a MODEL and its text are, in a few letters: cheap for 10 GB, the same after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import comfy.model_patcher
import torch
from comfy.quant_ops import QuantizedTensor
from comfy.weight_adapter import BypassInjectionManager
from torch import Tensor

# Of a large weight only some rows are read, all of a small one.
SMALL, ROWS = 4096, 4
LETTERS = 16


def weights_digest(model: comfy.model_patcher.ModelPatcher) -> str:
    """Name, shape, type and some rows of every weight, every LoRA on it with its strength, and the type it computes in.

    Loaded or not, on whatever device: merged LoRAs are taken for what they are, not for what the weights became.
    """
    inner = model.model
    digest = hashlib.sha256(str(inner.get_dtype_inference()).encode())
    tensors = {**dict(inner.diffusion_model.named_parameters()), **dict(inner.diffusion_model.named_buffers())}
    for name in sorted(tensors):
        key = f"diffusion_model.{name}"
        kept = model.backup.get(key)
        for part in _parts((name, tensors[name] if kept is None else kept.weight, model.patches.get(key))):
            digest.update(part)
    for part in _parts(sorted(_beside(model), key=lambda one: one[0])):
        digest.update(part)
    return digest.hexdigest()[:LETTERS]


def text_digest(prompts: Iterable[str], embeddings: Mapping[str, Tensor]) -> str:
    """Every bit of the embedding of each distinct prompt: another text encoder makes another film."""
    digest = hashlib.sha256()
    for prompt in dict.fromkeys(prompts):
        value = embeddings[prompt]
        digest.update(f"{prompt} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()[:LETTERS]


def _beside(model: comfy.model_patcher.ModelPatcher) -> Iterator[tuple[str, str, list[object], float]]:
    """LoRAs that run beside the layers: layer, kind, weights, strength. The host has them in what injects them."""
    injections = (one for several in model.injections.values() for one in several)
    held = (cell.cell_contents for one in injections for cell in getattr(one.inject, "__closure__", None) or ())
    for manager in (one for one in held if isinstance(one, BypassInjectionManager)):
        for name, (adapter, strength) in manager.adapters.items():
            # Cast to the layer's type when they are loaded, so here as well.
            dtype = model.model.get_submodule(name).weight.dtype
            weights = [one.to(dtype) if isinstance(one, Tensor) else one for one in adapter.weights]
            yield name, type(adapter).__name__, weights, strength


def _parts(value: object) -> Iterator[bytes]:
    """What tells a value from others: of tensors some rows, of adapters their weights, of functions their names."""
    if isinstance(value, QuantizedTensor):
        yield type(value).__name__.encode()
        yield from _parts(sorted(value.state_dict().items(), key=lambda one: one[0]))
    elif isinstance(value, Tensor):
        yield f"{tuple(value.shape)} {value.dtype}".encode()
        whole = value.numel() <= SMALL or value.ndim < 2
        yield from map(_bytes, [value] if whole else [value[len(value) * row // ROWS] for row in range(ROWS)])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _parts(one)
    elif hasattr(value, "weights"):
        yield type(value).__name__.encode()
        yield from _parts(value.weights)
    elif value is None or isinstance(value, str | int | float):
        yield repr(value).encode()
    else:
        yield str(getattr(value, "__qualname__", type(value).__qualname__)).encode()


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
