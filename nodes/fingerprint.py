"""What a MODEL and its text are, in a few letters: cheap for 10 GB, the same after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import comfy.model_patcher
from comfy.quant_ops import QuantizedTensor
from comfy.weight_adapter import BypassInjectionManager
from torch import Tensor

from ..longlive_core.take.settings import fingerprint, tensor_bytes

# Of a large weight only some rows are read, all of a small one.
SMALL, ROWS = 4096, 4


def weights_fingerprint(model: comfy.model_patcher.ModelPatcher) -> str:
    """The name, shape, type and some rows of every weight, every LoRA with its strength, and the compute type.

    The same whether the model is loaded or not, on any device: a merged LoRA counts as itself, not by the weights that
    it changed.
    """
    return fingerprint(_weights(model))


def text_fingerprint(prompts: Iterable[str], embeddings: Mapping[str, Tensor]) -> str:
    """Every bit of the embedding of each distinct prompt: another text encoder makes another film."""

    def parts() -> Iterator[bytes]:
        for prompt in dict.fromkeys(prompts):
            value = embeddings[prompt]
            yield f"{prompt} {tuple(value.shape)} {value.dtype}".encode()
            yield tensor_bytes(value)

    return fingerprint(parts())


def _weights(model: comfy.model_patcher.ModelPatcher) -> Iterator[bytes]:
    inner = model.model
    yield str(inner.get_dtype_inference()).encode()
    tensors = {**dict(inner.diffusion_model.named_parameters()), **dict(inner.diffusion_model.named_buffers())}
    for name in sorted(tensors):
        key = f"diffusion_model.{name}"
        original = model.backup.get(key)
        yield from _parts((name, tensors[name] if original is None else original.weight, model.patches.get(key)))
    yield from _parts(sorted(_beside(model), key=lambda layer: layer[0]))


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
        yield from map(tensor_bytes, [value] if whole else [value[len(value) * row // ROWS] for row in range(ROWS)])
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
