"""A transformer from a checkpoint: everything is compared by name and shape before a byte is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..model import CausalWan, WanConfig
from ..model.linears import Activations, Scratch
from .fouroversix import as_comfy_nvfp4
from .layer_formats import TensorRequirement, companion_names, packed, quantized_layers, unpacked
from .metadata import is_causal, read_settings
from .names import strip_prefixes, summarize_names
from .other_models import PATCH_EMBEDDING, identify_other_model
from .quantized_linear import quantized_linear
from .tensor_source import CheckpointError, TensorSource, TensorSpec, open_source

FLOAT_FORMATS = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


def load_checkpoint(
    path: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    text_len: int = 512,
    activations: Activations = "float",
) -> CausalWan:
    """A causal Wan transformer with the weights of a safetensors file or an official .pt, FourOverSix ones too.

    `dtype` of float weights; None keeps the file's own. Quantised layers stay packed and are decoded as they are used;
    with `activations` `nvfp4`, the inputs of NVFP4 layers are rounded like their weights. Sizes come from the shapes;
    heads and `text_len`, which leave no trace there, from the file's metadata if it tells them, else 128 channels a
    head and `text_len`. The model is in eval mode, without gradients.
    Raises FileNotFoundError, or CheckpointError for a file that is truncated, no checkpoint, of another model (the
    ordinary Wan, which is not causal, among them), or whose tensors do not match by name and shape (they are listed).
    """
    found = inspect_checkpoint(path, text_len=text_len)
    tensors = found.source.read(found.names.values())
    dtype = dtype if dtype is not None else tensors[found.names["head.modulation"]].dtype
    state = {wan: tensors[name].to(device) for wan, name in found.names.items()}
    skeleton, scratch, linears = found.skeleton, Scratch(), found.linears
    for layer in found.quantised:
        linear = quantized_linear(layer, state, linears[layer], scratch, dtype, activations)
        skeleton.set_submodule(layer, linear)
    floats = skeleton.state_dict()
    held = {name: value for name, value in floats.items() if not value.is_meta}
    skeleton.load_state_dict(
        {name: held[name] if name in held else state[name].to(dtype) for name in floats}, assign=True
    )
    return skeleton.requires_grad_(False).eval()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked file: Wan's name of every tensor -> its name in the file, and the model without its weights.

    `quantised` is linear layer -> `nvfp4` or `fp8`, for the layers that are. `format` is bf16, fp16, fp32, fp64, fp8 or
    nvfp4, as the quantised layers are, or where there are none as all linear layers are; else `mixed`.
    `causal` is None where the file does not tell it.
    """

    source: TensorSource
    names: Mapping[str, str]
    skeleton: CausalWan
    format: str
    quantised: Mapping[str, str]
    causal: bool | None

    @property
    def config(self) -> WanConfig:
        return self.skeleton.config

    @property
    def linears(self) -> dict[str, tuple[int, ...]]:
        """Every linear layer -> its shape [out, in], unpacked."""
        return _linears(self.skeleton)


def inspect_checkpoint(path: Path | str, *, text_len: int = 512) -> Checkpoint:
    """All that `load_checkpoint` checks, without reading the weights. Raises what it raises."""
    source = as_comfy_nvfp4(open_source(path))
    names = _wan_names(source)
    specs = {wan: source.specs[name] for wan, name in names.items()}
    _check_model(source.path, specs)
    causal = is_causal(source)
    if causal is False:
        raise CheckpointError(
            f"checkpoint {source.path} is the ordinary (bidirectional) Wan2.2 TI2V 5B, by its metadata or its name; "
            "it cannot make films block by block. Get LongLive-2.0-5B"
        )
    layers = quantized_layers(source, names)
    config = _config(source, unpacked(specs, layers), text_len)
    with torch.device("meta"):
        skeleton = CausalWan(config)
    wanted = {name: TensorRequirement(tuple(tensor.shape)) for name, tensor in skeleton.state_dict().items()}
    linears = _linears(skeleton)
    quantised_linears = {layer: form for layer, form in layers.items() if layer in linears}
    for layer, form in quantised_linears.items():
        wanted |= packed(layer, form, linears[layer])
    _check_tensors(source.path, specs, wanted, companion_names(source, names, quantised_linears))
    return Checkpoint(source, names, skeleton, _format(specs, linears, quantised_linears), quantised_linears, causal)


def _wan_names(source: TensorSource) -> dict[str, str]:
    """Wan's name of every tensor -> its name in the file."""
    stripped = {strip_prefixes(name): name for name in source.specs}
    if len(stripped) < len(source.specs):
        twice = sorted(set(source.specs) - set(stripped.values()))
        raise CheckpointError(
            f"checkpoint {source.path} holds tensors twice, under two prefixes: {summarize_names(twice)}"
        )
    return stripped


def _check_model(path: Path, specs: Mapping[str, TensorSpec]) -> None:
    other = identify_other_model(specs)
    if other is not None:
        raise CheckpointError(
            f"checkpoint {path} is {other}; LongLive needs a transformer with the layout of Wan2.2 TI2V 5B, "
            "such as LongLive-2.0-5B"
        )
    if PATCH_EMBEDDING not in specs:
        raise CheckpointError(
            f"checkpoint {path} is not a Wan transformer: it has no '{PATCH_EMBEDDING}' among its {len(specs)} tensors "
            f"({summarize_names(specs)})"
        )


def _config(source: TensorSource, shapes: Mapping[str, tuple[int, ...]], text_len: int) -> WanConfig:
    said = read_settings(source)
    try:
        state: Mapping[str, Tensor] = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        told = said.get("text_len", text_len)
        config = WanConfig.from_state_dict(state, num_heads=said.get("num_heads"), text_len=told)
        config = replace(config, eps=said.get("eps", config.eps))
        if config.num_layers > len(shapes):
            raise ValueError(f"{config.num_layers} layers in {len(shapes)} tensors")
        return config
    except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {source.path} does not describe a LongLive transformer: {error}") from error


def _linears(model: CausalWan) -> dict[str, tuple[int, ...]]:
    return {n: tuple(layer.weight.shape) for n, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def _format(specs: Mapping[str, TensorSpec], linears: Mapping[str, object], quantised: Mapping[str, str]) -> str:
    floats = {FLOAT_FORMATS[specs[f"{name}.weight"].dtype] for name in linears if name not in quantised}
    forms = set(quantised.values()) or floats
    return forms.pop() if len(forms) == 1 else "mixed"


def _check_tensors(
    path: Path, found: Mapping[str, TensorSpec], wanted: Mapping[str, TensorRequirement], allowed: set[str]
) -> None:
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted and name not in allowed]
    wrong = [(name, want.fault(found[name])) for name, want in wanted.items() if name in found]
    shapes = [f"{name} {fault}" for name, fault in wrong if fault is not None]
    faults = [
        f"{len(names)} {what}: {summarize_names(names)}"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if names
    ]
    if faults:
        raise CheckpointError(
            f"checkpoint {path} does not match LongLive's transformer ({len(wanted)} tensors); {'; '.join(faults)}"
        )
