"""Presents FourOverSix checkpoints (the official model_4o6.pt) as ComfyUI's NVFP4.

Both formats have the same 4-bit codes, block scales and swizzle. FourOverSix stores the even column in the low nibble,
and the largest magnitude (amax) of a weight, which equals 6 · 256 in codes times scales. ComfyUI stores the even column
in the high nibble, and amax / (6 · 256). Only this quotient is rounded.
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
from .packing import encode_settings, packed_specs
from .tensor_source import CheckpointError, TensorSource, TensorSpec

VALUES, SCALES, AMAX, SIZES = PARTS = (
    ".quantized_weight_values",
    ".quantized_weight_scale_factors",
    ".quantized_weight_amax",
    ".quantized_weight_metadata",
)


def as_comfy_nvfp4(source: TensorSource) -> TensorSource:
    """Returns a view of the file in which FourOverSix layers are ComfyUI's nvfp4 layers, converted when they are read.

    A file without such layers is returned unchanged. Reads only the sizes of the layers. Raises CheckpointError for a
    layer that lacks parts or whose parts do not fit together.
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
    converted = {
        f"{layer}.{part}": (layer, part, spec)
        for layer, shape in _read_shapes(source, layers).items()
        for part, spec in packed_specs("nvfp4", shape).items()
    }
    specs |= {name: spec for name, (_, _, spec) in converted.items()}
    return replace(source, specs=specs, read=_View(source, converted).read)


@dataclass(frozen=True, slots=True)
class _View:
    """Reads tensors of a file and converts those of FourOverSix layers.

    converted: name of a tensor -> its FourOverSix layer, the part of ComfyUI's nvfp4 that it is, and its spec.
    """

    source: TensorSource
    converted: Mapping[str, tuple[str, str, TensorSpec]]

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        names = list(names)
        unchanged = self.source.read(name for name in names if name not in self.converted)
        return {n: self._convert(*self.converted[n]) if n in self.converted else unchanged[n] for n in names}

    def _convert(self, layer: str, part: str, spec: TensorSpec) -> Tensor:
        if part == "comfy_quant":
            return encode_settings({"format": "nvfp4"})
        if part == "weight":
            rows, columns = spec.shape
            return swap_nibbles(self._read_part(layer, VALUES)[:rows, :columns])
        if part == "weight_scale":
            return self._read_part(layer, SCALES).view(torch.float8_e4m3fn).reshape(spec.shape)
        amax = self._read_part(layer, AMAX).float().reshape(())
        return amax / amax.new_full((), denominator_of("mse"))

    def _read_part(self, layer: str, part: str) -> Tensor:
        return self.source.read([layer + part])[layer + part]


def _read_shapes(source: TensorSource, layers: list[str]) -> Mapping[str, tuple[int, int]]:
    """Reads the shape [N, K] of each layer; the file stores it with the padded shape, [N, K, N16, K16]."""
    tensors = source.read(layer + SIZES for layer in layers)
    shapes: dict[str, tuple[int, int]] = {}
    for layer in layers:
        sizes = [int(size) for size in tensors[layer + SIZES].flatten().tolist()]
        # The zeros stand for sizes that a damaged file lacks; the check below refuses them.
        rows, columns, *_ = (*sizes, 0, 0)
        height, width = padded_shape(rows, columns, swizzled=True)
        values, scales = (source.specs[layer + part] for part in (VALUES, SCALES))
        valid = (
            sizes == [rows, columns, height, width]
            and min(rows, columns) >= 1
            and values == TensorSpec("U8", (height, width // 2))
            and scales.dtype in ("U8", "F8_E4M3")
            and scales.shape in ((height * width // BLOCK,), (height, width // BLOCK))
        )
        if not valid:
            raise CheckpointError(
                f"checkpoint {source.path}: the parts of '{layer}' do not fit together: sizes {sizes}, values "
                f"{list(values.shape)}, scales {list(scales.shape)}; copy it again"
            )
        shapes[layer] = rows, columns
    return shapes
