"""Compares a converted checkpoint with its source: the relative error of each kind of layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path

from torch import Tensor

from .tensor_source import CheckpointError
from .weight_reader import WeightReader, open_weights

# Upper bounds of the relative RMS error, whatever the weights are. Normally distributed weights have 0.09 in nvfp4,
# 0.026 in fp8 and 0.002 in bf16.
MAX_ERRORS = {"nvfp4": 0.25, "fp8": 0.1, "bf16": 0.01}

OTHER_TENSORS = "all others"

_BLOCK_LAYER = re.compile(r"blocks\.\d+\.(.+)")

# Values that are in float64 at once.
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class KindErrors:
    """Relative RMS errors |w' - w| / |w| of the tensors of one kind. `worst_name` is the tensor with the largest."""

    tensors: int
    mean: float
    worst: float
    worst_name: str


def compare_with_source(
    path: Path, source: WeightReader, packed: Mapping[str, str], on_tensor: Callable[[str], None]
) -> dict[str, KindErrors]:
    """Reads a converted file and compares every tensor with its source; returns kind of layer -> errors.

    A kind is the name of a layer within its block, such as `self_attn.q`; all other tensors are of one kind.
    packed: layer -> the format that it must have. on_tensor: called with each name before the tensor is read.

    Raises CheckpointError if the file is not a checkpoint with these packed layers, or if an error is NaN or larger
    than the format allows.
    """
    written = open_weights(path)
    checkpoint = written.checkpoint
    if checkpoint.quantized != packed or checkpoint.causal is False:
        raise CheckpointError(f"{path.name} was not written as planned: {len(checkpoint.quantized)} packed layers")
    errors_by_kind: dict[str, dict[str, float]] = {}
    for name in source.shapes:
        on_tensor(name)
        layer = name.removesuffix(".weight")
        quant_format = packed.get(layer, "bf16")
        error = relative_error(written.read_float(name), source.read_float(name))
        if not error <= MAX_ERRORS[quant_format]:  # not `>`, because NaN must fail too
            raise CheckpointError(
                f"'{name}' of {source.checkpoint.source.path} has a relative error of {error:.3g} in {quant_format}; "
                f"the limit is {MAX_ERRORS[quant_format]}. The source may be damaged: copy it again. "
                "Nothing was written"
            )
        block_layer = _BLOCK_LAYER.fullmatch(layer) if layer in checkpoint.linears else None
        errors_by_kind.setdefault(block_layer[1] if block_layer else OTHER_TENSORS, {})[layer] = error
    return {kind: _summarize(errors) for kind, errors in errors_by_kind.items()}


def relative_error(tensor: Tensor, exact: Tensor) -> float:
    """|tensor - exact| / |exact| over all values of two tensors of one shape; 0 if both are zero."""
    error = size = 0.0
    for values, exact_values in zip(*(t.reshape(-1).split(_CHUNK) for t in (tensor, exact)), strict=True):
        expected = exact_values.double()
        error += (values.double() - expected).square().sum().item()
        size += expected.square().sum().item()
    return sqrt(error / size) if size else (inf if error else 0.0)


def _summarize(errors: Mapping[str, float]) -> KindErrors:
    worst = max(errors, key=lambda name: errors[name])
    return KindErrors(len(errors), sum(errors.values()) / len(errors), errors[worst], worst)
