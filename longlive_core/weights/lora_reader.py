"""Reads LoRA files of every trainer into changes of a model's layers and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .lora import Lora
from .lora_alpha import LoraScales, config_file, parse_alpha, read_scales
from .lora_layer import LayerChange, LohaLayer, LokrLayer, LoraLayer, WholeLayer
from .lora_names import NOT_COMPUTED, LoraName, parse_lora_name
from .names import summarize_names
from .open_source import LORA_WRAPPER_KEYS, open_source
from .other_models import PATCH_EMBEDDING
from .tensor_source import CheckpointError, TensorSource

# Why a layer of the file is not applied.
HALF_MISSING, NO_FLOATS, TWO_CHANGES = "half missing", "no floats", "a difference beside a LoRA"
DORA_KERNEL = "a DoRA of a convolution"

LOHA_PARTS = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}
# What the magnitudes of a DoRA may stand beside; those of a LoHa, a LoKr or a difference are not computed here.
DORA_PARTS = {"down", "up", "magnitude", "alpha", "bias", "diff_b"}


def read_lora(path: Path | str) -> Lora:
    """Reads the LoRA of a safetensors file, of an official .pt file (its `generator_lora`), or of peft's folder.

    Accepts the names of peft, ComfyUI, kohya, LyCORIS and diffusers, wrapped modules included: LoRA, DoRA, LoHa, LoKr,
    and differences of weights, biases and norms. The alpha of a layer is its `.alpha` tensor, else that of the metadata
    or of peft's configuration, else its rank.
    Raises FileNotFoundError, or CheckpointError for a file that is truncated, holds no LoRA or one of a kind that is
    not computed here, has a layer twice, has two halves that do not fit together, or holds NaN or infinity.
    """
    source = open_source(path, LORA_WRAPPER_KEYS)
    parsed = {name: parts for name in source.specs if (parts := parse_lora_name(name)) is not None}
    names: dict[str, dict[str, str]] = {}
    for name, parts in parsed.items():
        names.setdefault(parts.layer, {}).setdefault(parts.part, name)
    _check_kinds(source, parsed, names)
    repeated = [name for name, parts in parsed.items() if names[parts.layer][parts.part] != name]
    if repeated:
        raise CheckpointError(f"lora {source.path} holds layers twice, under two names: {summarize_names(repeated)}")
    tensors = _read(source, parsed)
    scales = read_scales(source)
    layers: dict[str, LayerChange] = {}
    diffs: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    for layer, by_part in names.items():
        parts = {part: tensors[name] for part, name in by_part.items()}
        scale = _Scale(source, scales, next(parsed[name] for name in by_part.values()))
        change = _layer(source, layer, parts, scale)
        if isinstance(change, LayerChange):
            layers[layer] = change
        elif change is not None:
            skipped[layer] = change
        diffs |= _diffs(layer, parts, scale, change)
    _check_dora(source, scales, layers)
    if not layers and not diffs and not skipped:
        raise CheckpointError(_no_lora(source))
    config = config_file(source.path)
    files = source.files if config is None else (*source.files, config)
    unused = tuple(name for name in source.specs if name not in parsed)
    return Lora(source.path, files, layers, diffs, skipped, unused)


class _Scale:
    """The alpha of one layer."""

    def __init__(self, source: TensorSource, scales: LoraScales, name: LoraName) -> None:
        self._source, self._scales, self._name = source, scales, name

    def alpha(self, parts: Mapping[str, Tensor], rank: int) -> float:
        """The layer's own alpha, else that of the file."""
        if "alpha" not in parts:
            return self._scales.of(self._name, rank)
        own = parts["alpha"].flatten().tolist()
        return parse_alpha(self._source, own[0] if len(own) == 1 else own)


def _layer(source: TensorSource, layer: str, parts: Mapping[str, Tensor], scale: _Scale) -> LayerChange | str | None:
    """Returns the change of a linear layer; the reason why it is not applied; None if the file does not change it."""
    kinds = [
        {"down", "up"} & parts.keys(),
        {p for p in parts if p.startswith("hada_")},
        {p for p in parts if p.startswith("lokr_")},
    ]
    whole = parts.get("diff")
    if not any(kinds):
        if whole is None and "diff_b" not in parts and {"magnitude", "bias"} & parts.keys():
            return HALF_MISSING
        return WholeLayer(_flattened(whole)) if whole is not None and _is_linear(layer, whole) else None
    if not all(parts[part].is_floating_point() for kind in kinds for part in kind):
        return NO_FLOATS
    if sum(map(bool, kinds)) > 1 or whole is not None:
        return TWO_CHANGES
    if kinds[1]:
        return _loha(source, layer, parts, scale) if kinds[1] == LOHA_PARTS else HALF_MISSING
    if kinds[2]:
        return _lokr(source, layer, parts, scale)
    if len(kinds[0]) < 2:
        return HALF_MISSING
    down, up = parts["down"], parts["up"]
    if down.ndim < 2 or up.ndim < 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise CheckpointError(
            f"lora {source.path}: the halves of '{layer}' do not fit together: down {list(down.shape)} (rank, in) "
            f"and up {list(up.shape)} (out, rank); copy the file again"
        )
    if not _is_linear(layer, down):
        return DORA_KERNEL if "magnitude" in parts else None  # a convolution, see `_diffs`
    alpha, magnitude = scale.alpha(parts, len(down)), parts.get("magnitude")
    down, up = _flattened(down), _flattened(up)
    if magnitude is not None:
        magnitude = magnitude.flatten(1) if magnitude.ndim > 1 else magnitude[:, None]
        if tuple(magnitude.shape) not in ((up.shape[0], 1), (1, down.shape[1])):
            raise CheckpointError(
                f"lora {source.path}: the magnitudes of '{layer}' have the shape {list(magnitude.shape)}; DoRA has one "
                f"for each of {up.shape[0]} outputs or {down.shape[1]} inputs"
            )
    return LoraLayer(down, up, alpha, magnitude)


def _loha(source: TensorSource, layer: str, parts: Mapping[str, Tensor], scale: _Scale) -> LohaLayer:
    own = {part: parts[part] for part in LOHA_PARTS}
    sizes = [_product(source, layer, own, f"hada_{factor}") for factor in ("w1", "w2")]
    if sizes[0] != sizes[1]:
        raise CheckpointError(f"lora {source.path}: the products of '{layer}' do not fit together: {sizes}")
    return LohaLayer(own, scale.alpha(parts, own["hada_w1_b"].shape[0]))


def _lokr(source: TensorSource, layer: str, parts: Mapping[str, Tensor], scale: _Scale) -> LokrLayer | str:
    own = {part: _flattened(tensor) for part, tensor in parts.items() if part.startswith("lokr_")}
    if not all(f in own or {f"{f}_a", f"{f}_b"} <= own.keys() for f in ("lokr_w1", "lokr_w2")):
        return HALF_MISSING
    for factor in ("lokr_w1", "lokr_w2"):
        _product(source, layer, own, factor)
    rank = LokrLayer(own, 1.0).rank
    return LokrLayer(own, scale.alpha(parts, rank or 1))


def _product(source: TensorSource, layer: str, parts: Mapping[str, Tensor], factor: str) -> list[int]:
    """The shape of a factor, whole or a product a @ b. Raises CheckpointError if it has none."""
    present = [factor] if factor in parts else [f"{factor}_a", f"{factor}_b"]
    shapes = [list(parts[part].shape) for part in present]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or shapes[0][1] != shapes[-1][-len(shapes)]:
        found = " and ".join(f"{part} {shape}" for part, shape in zip(present, shapes, strict=True))
        raise CheckpointError(f"lora {source.path}: the parts of '{layer}' do not fit together: {found}")
    return [shapes[0][0], shapes[-1][1]]


def _diffs(
    layer: str, parts: Mapping[str, Tensor], scale: _Scale, change: LayerChange | str | None
) -> dict[str, Tensor]:
    """Returns what is added to parameters other than the weight of a linear layer, by Wan's names."""
    weight = layer if layer.endswith("modulation") else f"{layer}.weight"
    diffs: dict[str, Tensor] = {}
    if change is None and "diff" in parts:
        diffs[weight] = parts["diff"]
    if change is None and "down" in parts:
        down, up = parts["down"].float(), parts["up"].float()
        product = scale.alpha(parts, len(down)) / len(down) * (up.flatten(1) @ down.flatten(1))
        diffs[weight] = product.view(len(up), *down.shape[1:])
    if "diff_b" in parts:
        diffs[f"{layer}.bias"] = parts["diff_b"]
    if "bias" in parts and isinstance(change, LoraLayer):
        diffs[f"{layer}.bias"] = parts["bias"].float() * change.scale + diffs.get(f"{layer}.bias", 0)
    return diffs


def _is_linear(layer: str, tensor: Tensor) -> bool:
    """Whether a tensor is of a linear layer's weight: of two axes, or a convolution of one pixel."""
    return tensor.ndim >= 2 and tensor.shape[2:].numel() == 1 and not layer.endswith("modulation")


def _flattened(tensor: Tensor) -> Tensor:
    return tensor.flatten(1) if tensor.ndim > 2 else tensor


def _read(source: TensorSource, parsed: Mapping[str, LoraName]) -> dict[str, Tensor]:
    """Reads the tensors; fp8 as bf16, which holds the same numbers. Raises CheckpointError for NaN and infinity."""
    tensors = source.read(parsed)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            if tensor.itemsize == 1:
                tensor = tensors[name] = tensor.to(torch.bfloat16)
            if not torch.stack(torch.aminmax(tensor)).isfinite().all() and parsed[name].part != "alpha":
                raise CheckpointError(
                    f"lora {source.path}: '{name}' holds NaN or infinity; copy it again, or get another"
                )
    return tensors


def _check_kinds(source: TensorSource, parsed: Mapping[str, LoraName], layers: Mapping[str, Mapping[str, str]]) -> None:
    """Raises CheckpointError for changes that are not computed here. layers: layer -> part -> name of the tensor."""
    names = [name for name in source.specs if name not in parsed and NOT_COMPUTED.fullmatch(name)]
    names += [own["magnitude"] for own in layers.values() if "magnitude" in own and not own.keys() <= DORA_PARTS]
    if names:
        raise CheckpointError(
            f"lora {source.path} changes layers in a way that is not computed here ({summarize_names(names)}); in "
            "ComfyUI apply it with core's Load LoRA, elsewhere ask its author for a plain LoRA"
        )


def _check_dora(source: TensorSource, scales: LoraScales, layers: Mapping[str, LayerChange]) -> None:
    if scales.dora and not any(layer.kind == "DoRA" for layer in layers.values()):
        raise CheckpointError(
            f"lora {source.path} is a DoRA by its metadata, but its magnitudes (dora_scale or lora_magnitude_vector) "
            "are missing; ask its author for the whole file"
        )


def _no_lora(source: TensorSource) -> str:
    """The message for a file in which no tensor is part of a LoRA."""
    names = summarize_names(source.specs)
    if any(name.endswith(PATCH_EMBEDDING) for name in source.specs) or all(
        name.endswith((".weight", ".bias", "modulation")) for name in source.specs
    ):
        return (
            f"lora {source.path} holds no LoRA of a linear layer among its {len(source.specs)} tensors ({names}); load "
            "a whole model with the model loader"
        )
    return (
        f"lora {source.path}: the naming of its {len(source.specs)} tensors is not known ({names}); known are endings "
        "such as lora_A.weight, lora_down.weight, diff, hada_w1_a and lokr_w1"
    )
