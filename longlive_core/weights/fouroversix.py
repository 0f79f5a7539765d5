"""FourOverSix checkpoints (the official model_4o6.pt), shown as what they are in ComfyUI's NVFP4.

Both have the same 4-bit codes, block scales and swizzle. FourOverSix keeps the even column in the low nibble and the
largest magnitude of a weight, which stands for 6 · 256 in codes times scales; ComfyUI keeps the even column in the high
nibble and the quotient of the two. Nothing is rounded but that quotient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...kernels import swap_nibbles
from ...kernels.nvfp4_format import BLOCK, denominator_of, padded_shape
from .names import summarize_names
from .other_models import FOUROVERSIX
from .packing import note, packed_specs
from .tensor_source import CheckpointError, TensorSource, TensorSpec

VALUES, SCALES, AMAX, SIZES = PARTS = (
    ".quantized_weight_values",
    ".quantized_weight_scale_factors",
    ".quantized_weight_amax",
    ".quantized_weight_metadata",
)


def as_comfy_nvfp4(source: TensorSource) -> TensorSource:
    """The same file with FourOverSix layers as ComfyUI's nvfp4 layers, made as they are read; any other as it is.

    Only the sizes of the layers are read. Raises CheckpointError for a layer whose parts are missing or do not fit.
    """
    layers = [name.removesuffix(VALUES) for name in source.specs if name.endswith(VALUES)]
    if not layers:
        return source
    missing = [layer + part for layer in layers for part in PARTS if layer + part not in source.specs]
    if missing:
        raise CheckpointError(
            f"checkpoint {source.path} has {FOUROVERSIX} layers without {summarize_names(missing)}; copy it again"
        )
    specs = {name: spec for name, spec in source.specs.items() if not name.endswith(PARTS)}
    view = _View(source, {})
    for layer, shape in _shapes(source, layers).items():
        for part, spec in packed_specs("nvfp4", shape).items():
            specs[f"{layer}.{part}"] = spec
            view.made[f"{layer}.{part}"] = (layer, part, spec)
    return replace(source, specs=specs, read=view.read)


@dataclass(frozen=True, slots=True)
class _View:
    """`made`: name -> the FourOverSix layer that the tensor is made of, which part of it, and its spec."""

    source: TensorSource
    made: dict[str, tuple[str, str, TensorSpec]]

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        every = list(names)
        found = self.source.read(name for name in every if name not in self.made)
        return {name: self._make(*self.made[name]) if name in self.made else found[name] for name in every}

    def _make(self, layer: str, part: str, spec: TensorSpec) -> Tensor:
        if part == "comfy_quant":
            return note({"format": "nvfp4"})
        if part == "weight":
            rows, columns = spec.shape
            return swap_nibbles(self._stored(layer, VALUES)[:rows, :columns])
        if part == "weight_scale":
            return self._stored(layer, SCALES).view(torch.float8_e4m3fn).reshape(spec.shape)
        amax = self._stored(layer, AMAX).float().reshape(())
        return amax / amax.new_full((), denominator_of("mse"))

    def _stored(self, layer: str, part: str) -> Tensor:
        return self.source.read([layer + part])[layer + part]


def _shapes(source: TensorSource, layers: list[str]) -> Mapping[str, tuple[int, int]]:
    """Layer -> [N, K]; the file has them beside the padded sizes."""
    read = source.read(layer + SIZES for layer in layers)
    shapes: dict[str, tuple[int, int]] = {}
    for layer in layers:
        sizes = [int(size) for size in read[layer + SIZES].flatten().tolist()]
        rows, columns = shapes[layer] = (*sizes, 0, 0)[0], (*sizes, 0, 0)[1]
        height, width = padded_shape(rows, columns, swizzled=True)
        values, scales = (source.specs[layer + part] for part in (VALUES, SCALES))
        fits = (
            sizes == [rows, columns, height, width]
            and values == TensorSpec("U8", (height, width // 2))
            and scales.dtype in ("U8", "F8_E4M3")
            and scales.shape in ((height * width // BLOCK,), (height, width // BLOCK))
        )
        if not fits or min(rows, columns) < 1:
            raise CheckpointError(
                f"checkpoint {source.path}: the parts of '{layer}' do not fit, sizes {sizes}, values "
                f"{list(values.shape)}, scales {list(scales.shape)}; copy it again"
            )
    return shapes
