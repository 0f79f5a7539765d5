"""A checkpoint of any format into one safetensors file in ComfyUI's: bf16, fp8 or nvfp4."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ...kernels.nvfp4_format import denominator_of
from .conversion_check import Conversion, compare_with_source
from .names import summarize_names
from .packing import Parts, pack, packed_specs
from .safetensors_writer import file_size, replace_when_complete, write_safetensors
from .tensor_source import CheckpointError, TensorSpec
from .weight_reader import WeightReader, open_weights

Format = Literal["bf16", "fp8", "nvfp4"]
SUFFIXES = (".safetensors", ".sft")


class ConversionStopped(Exception):
    """`should_stop` said so; nothing was left behind."""


@dataclass(frozen=True, slots=True)
class ConvertProgress:
    """`name` is next; `done` of `total` weights were written, or read back where `checking`."""

    name: str
    done: int
    total: int
    checking: bool

    @property
    def share(self) -> float:
        """Of the whole work, 0 to 1."""
        return (self.done / self.total + self.checking) / 2


@torch.no_grad()
def convert_checkpoint(
    source: Path | str,
    target: Path | str,
    *,
    format: Format,
    lora: Path | str | None = None,
    strength: float = 1.0,
    rule: str = "mse",
    overwrite: bool = False,
    on_progress: Callable[[ConvertProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Conversion:
    """Writes `target`: the linear layers of the blocks in `format`, all else in bf16, tensor by tensor.

    `source` may have any format, FourOverSix too. Layers that are in `format` already are taken over bit by bit (fp8
    and nvfp4 with their scales); others are rounded once, from float32. `lora` is merged before that, W + strength ·
    alpha / rank · up @ down in float32. `rule` chooses nvfp4's block scales. The file says that it is causal, is read
    back and compared, and only then gets its name; whatever goes wrong, `target` is as it was.
    `should_stop` is asked, and `on_progress` told, before each tensor.

    Raises ConversionStopped; FileExistsError without `overwrite`; ValueError for paths, numbers or room on the disk
    that cannot be; CheckpointError for a source or LoRA that does not fit or is not finite, and for a LoRA on quantised
    layers that would be rounded again.
    """
    source, target = Path(source), Path(target)
    _check_choices(format, rule, strength)
    _check_paths(target, [source] if lora is None else [source, Path(lora)], overwrite)
    reader = open_weights(source, lora=lora, strength=strength)
    plan = _Plan(reader, format, rule)
    _check_lora(plan)
    metadata = _metadata(plan)
    size = file_size(plan.specs(), metadata)
    _check_room(target.parent, size)
    total = sum(map(math.prod, reader.shapes.values()))

    def steps(checking: bool) -> Callable[[str], None]:
        done = 0

        def step(name: str) -> None:
            nonlocal done
            if should_stop is not None and should_stop():
                raise ConversionStopped(f"stopped at {name}; {target} was not written")
            if on_progress is not None:
                on_progress(ConvertProgress(name, done, total, checking))
            done += math.prod(reader.shapes[name])

        return step

    with replace_when_complete(target) as part:
        write_safetensors(part, plan.specs(), metadata, plan.tensors(steps(False)))
        errors = compare_with_source(part, reader, plan.packed, steps(True))
    return Conversion(
        source,
        target,
        format,
        quantised=len(plan.packed),
        taken=sum(map(plan.taken, plan.packed)),
        kept=len(reader.shapes) - len(plan.packed),
        bytes_in=source.stat().st_size,
        bytes_out=size,
        errors=errors,
        lora=None if reader.lora is None else reader.lora.coverage(reader.found.linears),
        notes=_notes(plan),
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What becomes of each tensor of the model."""

    reader: WeightReader
    format: Format
    rule: str

    @property
    def packed(self) -> dict[str, str]:
        """Layer -> the format it is packed in; the linear layers of the blocks."""
        linears = () if self.format == "bf16" else self.reader.found.linears
        return {layer: self.format for layer in linears if layer.startswith("blocks.")}

    def taken(self, layer: str) -> bool:
        """Whether a layer goes over as it is."""
        return self.reader.found.quantised.get(layer) == self.format

    def specs(self) -> dict[str, TensorSpec]:
        specs: dict[str, TensorSpec] = {}
        packed = {f"{layer}.weight": layer for layer in self.packed}
        for name, shape in self.reader.shapes.items():
            if name not in packed:
                specs[name] = TensorSpec("BF16", shape)
                continue
            layer = packed[name]
            rows, columns = shape
            parts = self.reader.part_specs(layer) if self.taken(layer) else packed_specs(self.format, (rows, columns))
            specs |= {f"{layer}.{part}": spec for part, spec in parts.items()}
        return specs

    def tensors(self, step: Callable[[str], None]) -> Iterator[tuple[str, Tensor]]:
        """The file's tensors; nothing is held here but the parts of one layer that were not given yet."""
        packed = {f"{layer}.weight": layer for layer in self.packed}
        for name in self.reader.shapes:
            step(name)
            parts = self._parts(packed[name]) if name in packed else {name: self._kept(name)}
            while parts:
                yield parts.popitem()

    def _parts(self, layer: str) -> Parts:
        if self.taken(layer):
            parts = self.reader.parts(layer)
        else:
            weight = _finite(self.reader, f"{layer}.weight")
            parts = pack(weight, self.format, self.rule)
        return {f"{layer}.{part}": tensor for part, tensor in parts.items()}

    def _kept(self, name: str) -> Tensor:
        return _finite(self.reader, name).to(torch.bfloat16)


def _finite(reader: WeightReader, name: str) -> Tensor:
    tensor = reader.floats(name)
    if not torch.stack(torch.aminmax(tensor)).isfinite().all():
        raise CheckpointError(
            f"checkpoint {reader.found.source.path}: '{name}' holds NaN or infinity; copy it again, or get another"
        )
    return tensor


def _metadata(plan: _Plan) -> dict[str, str]:
    """Who made the model stays; what shapes do not tell, and that it is causal, is said; and what was done."""
    reader = plan.reader
    config, source = reader.found.config, reader.found.source
    done = {"from": source.path.name, "format": plan.format}
    done |= {"rule": plan.rule} if plan.format == "nvfp4" else {}
    done |= {"lora": reader.lora.path.name, "strength": str(reader.strength)} if reader.lora is not None else {}
    told = {"causal": True, "num_heads": config.num_heads, "text_len": config.text_len, "eps": config.eps}
    kept = {n: text for n, text in source.metadata.items() if n.startswith("modelspec.") and "hash" not in n}
    return {"format": "pt", **kept, "longlive": json.dumps({**told, "converted": done})}


def _notes(plan: _Plan) -> tuple[str, ...]:
    found = plan.reader.found
    again = [layer for layer in plan.packed if layer in found.quantised and not plan.taken(layer)]
    unsaid = "the source does not say that it is causal; the new file says so: it must be LongLive's, not Wan2.2 itself"
    twice = f"{len(again)} layers were quantised before and are rounded a second time; bf16 makes a better source"
    return (*((unsaid,) if found.causal is None else ()), *((twice,) if again else ()))


def _check_choices(format: str, rule: str, strength: float) -> None:
    if format not in get_args(Format):
        raise ValueError(f"format {format!r} is unknown: choose one of {', '.join(get_args(Format))}")
    denominator_of(rule)
    if not math.isfinite(strength):
        raise ValueError(f"strength {strength} must be a finite number; 1 is what a LoRA was trained for")


def _check_paths(target: Path, sources: list[Path], overwrite: bool) -> None:
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target} would be a safetensors file: let its name end in {SUFFIXES[0]}")
    if not target.parent.is_dir():
        raise ValueError(f"folder {target.parent} does not exist; make it, or choose another")
    if target.exists() and any(path.exists() and target.samefile(path) for path in sources):
        raise ValueError(f"{target} is read from and cannot be written to; choose another name")
    if target.exists() and not (overwrite and target.is_file()):
        raise FileExistsError(f"{target} is there already; choose another name, or allow to overwrite it")


def _check_lora(plan: _Plan) -> None:
    lora = plan.reader.lora
    rounded = [layer for layer in plan.packed if lora and layer in lora.layers and layer in plan.reader.found.quantised]
    if lora is not None and rounded:
        raise CheckpointError(
            f"lora {lora.path} cannot be merged into quantised weights ({summarize_names(rounded)}): rounding them again costs "
            "more than it changes. Start from the bf16 checkpoint, or convert without it and apply it beside the "
            "layers, as LongLive DMD LoRA does"
        )


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise ValueError(
            f"{folder} has {free / 1e9:.2f} GB free and the file takes {size / 1e9:.2f} GB; make room or choose "
            "another folder"
        )
