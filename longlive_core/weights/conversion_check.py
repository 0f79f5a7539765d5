"""What a conversion made: sizes, layers, and how far each kind of layer is from the source."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path

from torch import Tensor

from .lora_report import LoraReport
from .tensor_source import CheckpointError
from .weight_reader import WeightReader, open_weights

# Relative RMS error that a format stays below whatever the weights are; a normal distribution has 0.09 in nvfp4,
# 0.026 in fp8 and 0.002 in bf16.
MAX_ERRORS = {"nvfp4": 0.25, "fp8": 0.1, "bf16": 0.01}

OTHER_TENSORS = "all others"

_BLOCK_LAYER = re.compile(r"blocks\.\d+\.(.+)")
_STRIP = 1 << 20


@dataclass(frozen=True, slots=True)
class KindErrors:
    """Relative RMS errors |w' - w| / |w| of the tensors of one kind; `worst_name` has the largest."""

    tensors: int
    mean: float
    worst: float
    worst_name: str


@dataclass(frozen=True, slots=True)
class Conversion:
    """A file that was written and read back.

    `quantised` layers are packed, `taken` of them as the source had them; `kept` tensors are bf16. `errors`: kind of
    layer, such as `self_attn.q`, -> its errors; what is no linear layer of a block is in one kind.
    """

    source: Path
    target: Path
    format: str
    quantised: int
    taken: int
    kept: int
    bytes_in: int
    bytes_out: int
    errors: Mapping[str, KindErrors]
    lora: LoraReport | None = None
    notes: tuple[str, ...] = ()


def compare_with_source(
    path: Path, source: WeightReader, packed: Mapping[str, str], on_tensor: Callable[[str], None]
) -> dict[str, KindErrors]:
    """Reads a written file back and compares every tensor with its source. `packed`: layer -> the format it must have.

    Raises CheckpointError where the file is not a checkpoint with these layers packed so, or where a tensor is further
    from the source than its format can be, which NaN always is.
    """
    written = open_weights(path)
    found = written.found
    if found.quantised != packed or not found.causal:
        raise CheckpointError(f"{path.name} was not written as planned: {len(found.quantised)} packed layers")
    kinds: dict[str, dict[str, float]] = {}
    for name in source.shapes:
        on_tensor(name)
        layer = name.removesuffix(".weight")
        error = relative_error(written.floats(name), source.floats(name))
        limit = MAX_ERRORS[packed.get(layer, "bf16")]
        if not error <= limit:
            raise CheckpointError(
                f"'{name}' of {source.found.source.path} is {error:.3g} of its size away from itself in "
                f"{packed.get(layer, 'bf16')}, which loses {limit} at most: is it damaged? Nothing was written"
            )
        block = _BLOCK_LAYER.fullmatch(layer) if layer in found.linears else None
        kinds.setdefault(block[1] if block else OTHER_TENSORS, {})[layer] = error
    return {kind: _errors(errors) for kind, errors in kinds.items()}


def relative_error(tensor: Tensor, exact: Tensor) -> float:
    """|tensor - exact| / |exact| over all values; 0 where both are zero."""
    error = size = 0.0
    for part, whole in zip(_strips(tensor), _strips(exact), strict=True):
        wanted = whole.double()
        error += (part.double() - wanted).square().sum().item()
        size += wanted.square().sum().item()
    return sqrt(error / size) if size else (inf if error else 0.0)


def _strips(tensor: Tensor) -> Iterable[Tensor]:
    return tensor.reshape(-1).split(_STRIP)


def _errors(errors: Mapping[str, float]) -> KindErrors:
    worst = max(errors, key=lambda name: errors[name])
    return KindErrors(len(errors), sum(errors.values()) / len(errors), errors[worst], worst)
