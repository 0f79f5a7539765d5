"""Loads a transformer from a checkpoint, after all names and shapes have been checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..model import CausalWan, WanConfig
from ..model.linears import Activations, Scratch
from .fouroversix import as_comfy_nvfp4
from .layer_formats import TensorRequirement, companion_names, packed_requirements, quantized_layers, unpacked_shapes
from .metadata import is_causal, read_settings
from .names import strip_prefixes, summarize_names
from .open_source import open_source
from .other_models import PATCH_EMBEDDING, identify_other_model
from .quantized_linear import quantized_linear
from .tensor_source import CheckpointError, TensorSource, TensorSpec

FLOAT_FORMATS = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


def load_checkpoint(
    path: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    text_len: int = 512,
    activations: Activations = "float",
) -> CausalWan:
    """Loads a causal Wan transformer from a safetensors file or an official .pt file, FourOverSix included.

    The model is in eval mode, without gradients. Quantised layers stay packed and are dequantised when they run.
    dtype: the dtype of unquantised weights; None keeps the dtype of the file.
    text_len: used when the metadata does not give it. The number of heads is read from the metadata as well, with a
        default of 128 channels a head; all other sizes follow from the shapes.
    activations: `nvfp4` quantises the inputs of NVFP4 layers as their weights are quantised.

    Raises FileNotFoundError, or CheckpointError for a truncated file, for a file that is not a checkpoint or holds
    another model (such as the bidirectional Wan), and for tensors of a wrong name or shape, which the message lists.
    """
    checkpoint = inspect_checkpoint(path, text_len=text_len)
    names, model = checkpoint.names, checkpoint.skeleton
    tensors = checkpoint.source.read(names.values())
    dtype = dtype if dtype is not None else tensors[names["head.modulation"]].dtype
    state = {wan_name: tensors[name].to(device) for wan_name, name in names.items()}
    scratch, linears = Scratch(), checkpoint.linears
    for layer in checkpoint.quantized:
        model.set_submodule(layer, quantized_linear(layer, state, linears[layer], scratch, dtype, activations))
    # Quantised layers have their tensors already; everything else is still on the meta device.
    targets = model.state_dict()
    loaded = {name: state[name].to(dtype) if target.is_meta else target for name, target in targets.items()}
    model.load_state_dict(loaded, assign=True)
    return model.requires_grad_(False).eval()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose names and shapes have been checked, and its model without weights.

    names: Wan's name of each tensor -> its name in the file.
    skeleton: the model on the meta device.
    linears: name of each linear layer -> shape [out, in] of its unpacked weight.
    format: bf16, fp16, fp32, fp64, fp8 or nvfp4: the format of the quantised layers, or of all linear layers if none
        is quantised; `mixed` if they differ.
    quantized: name of each quantised linear layer -> `nvfp4` or `fp8`.
    causal: None if the file does not say.
    """

    source: TensorSource
    names: Mapping[str, str]
    skeleton: CausalWan
    linears: Mapping[str, tuple[int, ...]]
    format: str
    quantized: Mapping[str, str]
    causal: bool | None

    @property
    def config(self) -> WanConfig:
        """The configuration of the model."""
        return self.skeleton.config


def inspect_checkpoint(path: Path | str, *, text_len: int = 512) -> Checkpoint:
    """Makes all checks of `load_checkpoint` without reading the weights, and raises the same errors."""
    source = as_comfy_nvfp4(open_source(path))
    _check_model(source.path, source.specs)
    names = _wan_names(source)
    specs = {wan_name: source.specs[name] for wan_name, name in names.items()}
    causal = is_causal(source)
    if causal is False:
        raise CheckpointError(
            f"checkpoint {source.path} is the ordinary (bidirectional) Wan2.2 TI2V 5B, by its metadata or its name; "
            "it cannot make films block by block. Get LongLive-2.0-5B"
        )
    formats = quantized_layers(source, names)
    with torch.device("meta"):
        skeleton = CausalWan(_read_config(source, unpacked_shapes(specs, formats), text_len))
    required = {name: TensorRequirement(tuple(tensor.shape)) for name, tensor in skeleton.state_dict().items()}
    linears = {n: tuple(layer.weight.shape) for n, layer in skeleton.named_modules() if isinstance(layer, nn.Linear)}
    # An fp8 tensor outside the linear layers stays in `required` as a float, so that the check refuses it.
    quantized = {layer: quant_format for layer, quant_format in formats.items() if layer in linears}
    for layer, quant_format in quantized.items():
        required |= packed_requirements(layer, quant_format, linears[layer])
    _check_tensors(source.path, specs, required, companion_names(source, names, quantized))
    # The float formats count only if no layer is quantised.
    overall = set(quantized.values()) or {FLOAT_FORMATS[specs[f"{layer}.weight"].dtype] for layer in linears}
    file_format = overall.pop() if len(overall) == 1 else "mixed"
    return Checkpoint(source, names, skeleton, linears, file_format, quantized, causal)


def _wan_names(source: TensorSource) -> dict[str, str]:
    """Maps Wan's name of each tensor to its name in the file."""
    names = {strip_prefixes(name): name for name in source.specs}
    if len(names) < len(source.specs):
        repeated = summarize_names(sorted(set(source.specs) - set(names.values())))
        raise CheckpointError(f"checkpoint {source.path} holds tensors twice, under two prefixes: {repeated}")
    return names


def _check_model(path: Path, specs: Mapping[str, TensorSpec]) -> None:
    """Raises CheckpointError if the tensors belong to another model than a Wan transformer of the known layout."""
    other = identify_other_model(specs)
    if other is not None:
        raise CheckpointError(
            f"checkpoint {path} is {other}; LongLive needs a transformer with the layout of Wan2.2 TI2V 5B, "
            "such as LongLive-2.0-5B"
        )
    if not any(strip_prefixes(name) == PATCH_EMBEDDING for name in specs):
        raise CheckpointError(
            f"checkpoint {path} is not a Wan transformer: it has no '{PATCH_EMBEDDING}' among its {len(specs)} tensors "
            f"({summarize_names(specs)})"
        )


def _read_config(source: TensorSource, shapes: Mapping[str, tuple[int, ...]], text_len: int) -> WanConfig:
    """Reads the model's configuration from the unpacked shapes and the metadata."""
    settings = read_settings(source)
    try:
        state: Mapping[str, Tensor] = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        config = WanConfig.from_state_dict(
            state, num_heads=settings.get("num_heads"), text_len=settings.get("text_len", text_len)
        )
        config = replace(config, eps=settings.get("eps", config.eps))
        if config.num_layers > len(shapes):
            raise ValueError(f"{config.num_layers} layers in {len(shapes)} tensors")
        return config
    except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {source.path} does not describe a LongLive transformer: {error}") from error


def _check_tensors(
    path: Path, specs: Mapping[str, TensorSpec], required: Mapping[str, TensorRequirement], allowed: set[str]
) -> None:
    """Raises CheckpointError that lists all missing, unknown and wrongly shaped tensors."""
    missing = [name for name in required if name not in specs]
    unknown = [name for name in specs if name not in required and name not in allowed]
    present = {name: (required[name], specs[name]) for name in required if name in specs}
    shapes = [f"{n} {wrong}" for n, (need, spec) in present.items() if (wrong := need.wrong_shape(spec)) is not None]
    dtypes = [f"{n} {wrong}" for n, (need, spec) in present.items() if (wrong := need.wrong_dtype(spec)) is not None]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", shapes), ("of another dtype", dtypes))
    faults = [f"{len(names)} {kind}: {summarize_names(names)}" for kind, names in kinds if names]
    if faults:
        only_dtypes = not (missing or unknown or shapes)
        remedy = "; only linear layers may be quantised: use the bf16 file, or one that keeps all other tensors in bf16"
        raise CheckpointError(
            f"checkpoint {path} does not match LongLive's transformer ({len(required)} tensors); {'; '.join(faults)}"
            f"{remedy if only_dtypes else ''}"
        )
