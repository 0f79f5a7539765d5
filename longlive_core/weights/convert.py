"""Converts a checkpoint of any format to a safetensors file in ComfyUI's format: bf16, fp8 or nvfp4."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ...kernels.nvfp4_format import denominator_of
from .conversion_check import KindErrors, compare_with_source
from .lora_file import LoraFile, check_strength, known_name
from .lora_report import LoraReport
from .metadata import merged_loras
from .names import summarize_names
from .packing import Parts, pack, packed_specs
from .safetensors_writer import file_size, replace_when_complete, write_safetensors
from .tensor_source import CheckpointError, TensorSpec
from .weight_reader import WeightReader, open_weights

Format = Literal["bf16", "fp8", "nvfp4"]
SUFFIXES = (".safetensors", ".sft")


class ConversionStopped(Exception):
    """Raised after `should_stop` returned true; the conversion left no file."""


@dataclass(frozen=True, slots=True)
class ConvertProgress:
    """The tensor `name` comes next; `done` of `total` weights were written, or compared if `checking`."""

    name: str
    done: int
    total: int
    checking: bool

    @property
    def fraction(self) -> float:
        """The finished part of the whole conversion, 0 to 1; writing and checking are one half each."""
        return (self.done / self.total + self.checking) / 2


@dataclass(frozen=True, slots=True)
class Conversion:
    """The result of a conversion whose file was compared with its source.

    quantized: number of packed layers; `copied` of them were in the format already and are unchanged.
    unquantized: number of tensors in bf16. bytes_in, bytes_out: sizes of the two files.
    errors: kind of layer, such as `self_attn.q` -> its errors; all tensors outside the blocks' linear layers are one.
    loras: the coverage of each merged LoRA.
    """

    source: Path
    target: Path
    format: str
    quantized: int
    copied: int
    unquantized: int
    bytes_in: int
    bytes_out: int
    errors: Mapping[str, KindErrors]
    loras: tuple[LoraReport, ...] = ()
    notes: tuple[str, ...] = ()


@torch.no_grad()
def convert_checkpoint(
    source: Path | str,
    target: Path | str,
    *,
    format: Format,
    loras: Sequence[LoraFile] = (),
    causal: bool = False,
    rule: str = "mse",
    overwrite: bool = False,
    on_progress: Callable[[ConvertProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Conversion:
    """Writes `target`, tensor by tensor: the blocks' linear layers in `format`, all other tensors in bf16.

    `source` may have any format, FourOverSix included. Layers that are in `format` already are copied bit by bit,
    scales included; all others are rounded once, from float32. The file states that its model is causal if the source
    does, or if `causal` says so. It is read again and compared with the source before it gets its name; after any
    failure `target` is unchanged.
    loras: merged before rounding, in float32: W + Σ strength · alpha / rank · up @ down.
    rule: how nvfp4 chooses its block scales, one of `kernels.RULES`.
    on_progress, should_stop: called before each tensor.

    Raises ConversionStopped; FileExistsError without `overwrite`; ValueError for invalid paths or numbers and for a
    full disk; CheckpointError for a source or LoRA that does not fit or is not finite, and for a LoRA on quantised
    layers that would be rounded again.
    """
    source, target = Path(source), Path(target)
    _check_choices(format, rule, loras)
    _check_paths(target, [source, *(lora.path for lora in loras)], overwrite)
    reader = open_weights(source, loras=loras)
    _check_not_source(target, reader.checkpoint.source.files)
    plan = _ConversionPlan(reader, format, rule, causal)
    _check_lora(plan)
    metadata = _make_metadata(plan)
    size = file_size(plan.specs(), metadata)
    _check_free_space(target.resolve().parent, size)
    make_step = partial(_step, reader, target, on_progress, should_stop)
    with replace_when_complete(target) as part:
        write_safetensors(part, plan.specs(), metadata, plan.tensors(make_step(checking=False)))
        errors = compare_with_source(part, reader, plan.packed, make_step(checking=True))
    return Conversion(
        source,
        target,
        format,
        quantized=len(plan.packed),
        copied=sum(map(plan.is_copied, plan.packed)),
        unquantized=len(reader.shapes) - len(plan.packed),
        bytes_in=reader.checkpoint.source.file_bytes,
        bytes_out=size,
        errors=errors,
        loras=tuple(lora.coverage(reader.checkpoint.linears, reader.shapes) for lora, _ in reader.loras),
        notes=_notes(plan),
    )


def _step(
    reader: WeightReader,
    target: Path,
    on_progress: Callable[[ConvertProgress], None] | None,
    should_stop: Callable[[], bool] | None,
    *,
    checking: bool,
) -> Callable[[str], None]:
    """What to call before each tensor with its name: reports progress, and raises ConversionStopped on request."""
    total, done = sum(map(math.prod, reader.shapes.values())), 0

    def step(name: str) -> None:
        nonlocal done
        if should_stop is not None and should_stop():
            raise ConversionStopped(f"stopped at {name}; {target} was not written")
        if on_progress is not None:
            on_progress(ConvertProgress(name, done, total, checking))
        done += math.prod(reader.shapes[name])

    return step


@dataclass(frozen=True, slots=True)
class _ConversionPlan:
    """Decides for each tensor of the model how it is written."""

    reader: WeightReader
    format: Format
    rule: str
    causal: bool

    @property
    def packed(self) -> dict[str, str]:
        """Layer -> the format that it is packed in; only the blocks' linear layers are packed."""
        linears = () if self.format == "bf16" else self.reader.checkpoint.linears
        return {layer: self.format for layer in linears if layer.startswith("blocks.")}

    def is_copied(self, layer: str) -> bool:
        """Whether a layer is in the format already, as ComfyUI reads it."""
        return self.reader.checkpoint.quantized.get(layer) == self.format and not self.reader.has_row_scales(layer)

    def specs(self) -> dict[str, TensorSpec]:
        """The tensors of the new file."""
        specs: dict[str, TensorSpec] = {}
        packed = {f"{layer}.weight": layer for layer in self.packed}
        for name, shape in self.reader.shapes.items():
            if name in packed:
                layer = packed[name]
                parts = self.reader.part_specs(layer) if self.is_copied(layer) else packed_specs(self.format, shape)
                specs |= {f"{layer}.{part}": spec for part, spec in parts.items()}
            else:
                specs[name] = TensorSpec("BF16", shape)
        return specs

    def tensors(self, step: Callable[[str], None]) -> Iterator[tuple[str, Tensor]]:
        """Yields the tensors of the new file; holds no more than the remaining parts of one layer."""
        packed = {f"{layer}.weight": layer for layer in self.packed}
        for name in self.reader.shapes:
            step(name)
            parts = self._pack(packed[name]) if name in packed else {name: self._read(name).to(torch.bfloat16)}
            while parts:
                yield parts.popitem()

    def _pack(self, layer: str) -> Parts:
        if self.is_copied(layer):
            parts = self.reader.read_parts(layer)
        else:
            parts = pack(self._read(f"{layer}.weight"), self.format, self.rule)
        return {f"{layer}.{part}": tensor for part, tensor in parts.items()}

    def _read(self, name: str) -> Tensor:
        """Reads a tensor as floats. Raises CheckpointError if it holds NaN or infinity."""
        tensor = self.reader.read_float(name)
        if not torch.stack(torch.aminmax(tensor)).isfinite().all():
            path = self.reader.checkpoint.source.path
            raise CheckpointError(f"checkpoint {path}: '{name}' holds NaN or infinity; copy it again, or get another")
        return tensor


def _make_metadata(plan: _ConversionPlan) -> dict[str, str]:
    """Makes the metadata: the author's `modelspec` keys, the settings that shapes do not show, and the conversion."""
    reader = plan.reader
    config, source = reader.checkpoint.config, reader.checkpoint.source
    converted: dict[str, object] = {"from": source.path.name, "format": plan.format}
    converted |= {"rule": plan.rule} if plan.format == "nvfp4" else {}
    merged = [*merged_loras(source), *(known_name(lora.path) for lora, _ in reader.loras)]
    if merged:
        converted["lora"] = merged if len(merged) > 1 else merged[0]
    if reader.loras:
        converted["strength"] = ", ".join(str(strength) for _, strength in reader.loras)
    settings = {"num_heads": config.num_heads, "text_len": config.text_len, "eps": config.eps}
    settings |= {"causal": True} if plan.causal or reader.checkpoint.causal else {}
    # A hash of the old content would be wrong in the new file.
    modelspec = {n: text for n, text in source.metadata.items() if n.startswith("modelspec.") and "hash" not in n}
    return {"format": "pt", **modelspec, "longlive": json.dumps({**settings, "converted": converted})}


def _notes(plan: _ConversionPlan) -> tuple[str, ...]:
    checkpoint = plan.reader.checkpoint
    requantized = [layer for layer in plan.packed if layer in checkpoint.quantized and not plan.is_copied(layer)]
    notes = (
        f"{checkpoint.source.path.name} does not say whether it is causal, as LongLive is and Wan2.2 is not, so the "
        "new file does not either; if it is LongLive, convert it with --causal",
        f"{len(requantized)} layers were quantised before and are rounded a second time; a bf16 source is better",
    )
    return tuple(compress(notes, (checkpoint.causal is None and not plan.causal, requantized)))


def _check_choices(quant_format: str, rule: str, loras: Sequence[LoraFile]) -> None:
    if quant_format not in get_args(Format):
        raise ValueError(f"format {quant_format!r} is unknown: choose one of {', '.join(get_args(Format))}")
    denominator_of(rule)  # raises ValueError for an unknown rule
    for lora in loras:
        check_strength(lora.strength)


def _check_paths(target: Path, sources: list[Path], overwrite: bool) -> None:
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target} has no safetensors extension; use a name that ends in {' or '.join(SUFFIXES)}")
    folder = target.resolve().parent  # a link is written through
    if not folder.is_dir():
        raise ValueError(f"folder {folder} does not exist; create it, or choose another")
    _check_not_source(target, sources)
    if target.exists() and not (overwrite and target.is_file()):
        raise FileExistsError(f"{target} exists already; choose another name, or allow it to be overwritten")


def _check_not_source(target: Path, sources: Sequence[Path]) -> None:
    if target.exists() and any(path.exists() and target.samefile(path) for path in sources):
        raise ValueError(f"{target} is a source of the conversion and cannot be its target; choose another name")


def _check_lora(plan: _ConversionPlan) -> None:
    quantized = plan.reader.checkpoint.quantized
    for lora, _ in plan.reader.loras:
        rounded = [layer for layer in plan.packed if layer in lora.layers and layer in quantized]
        if not rounded:
            continue
        raise CheckpointError(
            f"lora {lora.path} cannot be merged into quantised weights ({summarize_names(rounded)}): rounding them "
            "again loses more than the LoRA changes. Start from the bf16 checkpoint, or convert without the LoRA and "
            "apply it as a bypass, as LongLive DMD LoRA does"
        )


def _check_free_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ValueError(
            f"{folder} has {free / 1e9:.2f} GB free and the file needs {size / 1e9:.2f} GB; free some space or choose "
            "another folder"
        )
