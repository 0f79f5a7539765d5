"""A transformer from a checkpoint: everything is compared by name and shape before a byte is allocated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..model import CausalWan, WanConfig
from .known import PATCH, other_model, quantisation
from .source import CheckpointError, TensorSource, TensorSpec, open_source

# What trainers and other programs put before Wan's own names, in any order and number.
PREFIXES = ("model.", "diffusion_model.", "generator.", "generator_ema.", "_fsdp_wrapped_module.", "module.")

FLOATS = {"F64", "F32", "F16", "BF16"}
LISTED = 8


def load_checkpoint(
    path: Path | str, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", text_len: int = 512
) -> CausalWan:
    """A causal Wan transformer with the float weights of a safetensors file or an official .pt.

    `dtype` None keeps the file's own. Sizes come from the shapes; heads and `text_len`, which leave no trace there,
    from the file's metadata if it tells them, else 128 channels a head and `text_len`. The model is in eval mode,
    without gradients.
    Raises FileNotFoundError, or CheckpointError for a file that is truncated, no checkpoint, quantised (not supported
    yet), of another model, or whose tensors do not match by name and shape (they are listed).
    """
    found = inspect_checkpoint(path, text_len=text_len)
    tensors = found.source.read(found.names.values())
    dtype = dtype if dtype is not None else tensors[found.names["head.modulation"]].dtype
    state = {wan: tensors[name].to(device, dtype) for wan, name in found.names.items()}
    found.skeleton.load_state_dict(state, assign=True)
    return found.skeleton.requires_grad_(False).eval()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checked file: Wan's name of every tensor -> its name in the file, and the model without its weights."""

    source: TensorSource
    names: Mapping[str, str]
    skeleton: CausalWan

    @property
    def config(self) -> WanConfig:
        return self.skeleton.config


def inspect_checkpoint(path: Path | str, *, text_len: int = 512) -> Checkpoint:
    """All that `load_checkpoint` checks, without reading a tensor. Raises what it raises."""
    source = open_source(path)
    names = _wan_names(source)
    specs = {wan: source.specs[name] for wan, name in names.items()}
    _check_format(source.path, specs)
    config = _config(source, specs, text_len)
    with torch.device("meta"):
        skeleton = CausalWan(config)
    _check_tensors(source.path, specs, skeleton.state_dict())
    return Checkpoint(source, names, skeleton)


def _wan_names(source: TensorSource) -> dict[str, str]:
    """Wan's name of every tensor -> its name in the file."""
    stripped = {strip_prefixes(name): name for name in source.specs}
    if len(stripped) < len(source.specs):
        twice = sorted(set(source.specs) - set(stripped.values()))
        raise CheckpointError(f"checkpoint {source.path} holds tensors twice, under two prefixes: {_listed(twice)}")
    return stripped


def strip_prefixes(name: str) -> str:
    """Wan's own name of a tensor: `model.diffusion_model.blocks.0.…` -> `blocks.0.…`."""
    name = name.replace("_fsdp_wrapped_module.", "")
    while (prefix := next((p for p in PREFIXES if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def _check_format(path: Path, specs: Mapping[str, TensorSpec]) -> None:
    other = other_model(specs)
    if other is not None:
        raise CheckpointError(
            f"checkpoint {path} is {other}; LongLive needs a transformer with the layout of Wan2.2 TI2V 5B, "
            "such as LongLive-2.0-5B"
        )
    if PATCH not in specs:
        raise CheckpointError(
            f"checkpoint {path} is not a Wan transformer: it has no '{PATCH}' among its {len(specs)} tensors "
            f"({_listed(specs)})"
        )
    format_name = quantisation(specs)
    if format_name is not None:
        raise CheckpointError(
            f"checkpoint {path} has {format_name} weights, which this version cannot load yet; use the bf16 checkpoint"
        )
    strange = [f"{name} ({spec.dtype})" for name, spec in specs.items() if spec.dtype not in FLOATS]
    if strange:
        raise CheckpointError(f"checkpoint {path} has tensors that are not bf16, fp16 or fp32: {_listed(strange)}")


def _config(source: TensorSource, specs: Mapping[str, TensorSpec], text_len: int) -> WanConfig:
    try:
        if "config" in source.metadata:
            config = WanConfig.from_mapping(json.loads(source.metadata["config"]))
        else:
            shapes: Mapping[str, Tensor] = {n: torch.empty(spec.shape, device="meta") for n, spec in specs.items()}
            config = WanConfig.from_state_dict(shapes, text_len=text_len)
        if config.num_layers > len(specs):
            raise ValueError(f"{config.num_layers} layers in {len(specs)} tensors")
        return config
    except (ValueError, TypeError, IndexError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"checkpoint {source.path} does not describe a LongLive transformer: {error}") from error


def _check_tensors(path: Path, found: Mapping[str, TensorSpec], wanted: Mapping[str, Tensor]) -> None:
    faults: list[str] = []
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    shapes = [
        f"{name} {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tuple(tensor.shape)
    ]
    for what, names in (("missing", missing), ("unknown", extra), ("of another shape", shapes)):
        if names:
            faults.append(f"{len(names)} {what}: {_listed(names)}")
    if faults:
        raise CheckpointError(
            f"checkpoint {path} does not match LongLive's transformer ({len(wanted)} tensors); {'; '.join(faults)}"
        )


def _listed(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    every = list(names)
    shown = ", ".join(every[:LISTED]) or "none"
    return f"{shown} and {len(every) - LISTED} more" if len(every) > LISTED else shown
