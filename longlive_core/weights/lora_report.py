"""Reports which layers of a model a LoRA changes, and checks that their shapes fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from .names import summarize_names
from .tensor_source import CheckpointError

# Width of a Wan transformer -> the models that LoRAs of this width are made for.
MODEL_BY_WIDTH = {1536: "Wan2.1 1.3B or LongLive 1.0", 3072: "Wan2.2 TI2V 5B, LongLive 2.0", 5120: "Wan 14B"}


@dataclass(frozen=True, slots=True)
class LoraReport:
    """The coverage of a model by a LoRA.

    applied: the linear layers that the LoRA changes. missing: linear layers of the model's blocks that it leaves
    unchanged. unused: layers that the model lacks, and tensors that are no part of a change.
    ranks, alphas: the different values of the applied layers, in rising order.
    kinds: the kind of each applied layer. diffs: number of other tensors that are changed: biases, norms, convolutions.
    skipped: layer of the file -> why it is not applied.
    """

    applied: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    kinds: tuple[str, ...] = ()
    diffs: int = 0
    skipped: Mapping[str, str] | None = None

    def text(self) -> str:
        """Formats the report as in `52 of 60 layers; rank 8, alpha 8; 8 of the file's 60 layers not applied: half
        missing (…); unused: none`.
        """
        skipped = self.skipped or {}
        total, in_file = len(self.applied) + len(self.missing), len(self.applied) + len(skipped)
        parts = [f"{len(self.applied)} of {total} layers"]
        if self.ranks:
            parts.append(f"rank {_format_range(self.ranks)}, alpha {_format_range(self.alphas)}")
        kinds = Counter(kind for kind in self.kinds if kind != "LoRA")
        parts += [f"{kind} in {count} layer{'s' * (count > 1)}" for kind, count in sorted(kinds.items())]
        if self.diffs:
            parts.append(f"{self.diffs} other tensors (biases, norms)")
        for reason in sorted(set(skipped.values())):
            names = [name for name, why in skipped.items() if why == reason]
            lost = f"{len(names)} of the file's {in_file} layers not applied: {reason}"
            parts.append(f"{lost} ({summarize_names(names)})")
        unchanged = [name for name in self.missing if name not in skipped]
        if unchanged and self.applied:
            parts.append(f"unchanged: {summarize_names(unchanged)}")
        return "; ".join([*parts, f"unused: {summarize_names(self.unused)}"])


def check_shapes(path: Path, lora: Mapping[str, tuple[int, ...]], model: Mapping[str, tuple[int, ...]]) -> None:
    """Raises CheckpointError if a layer or tensor has another shape in the model, or if the model has none of them.

    lora, model: layer -> shape [out, in], or tensor -> shape.
    """
    wrong = [name for name, shape in lora.items() if name in model and tuple(model[name]) != shape]
    # A self-attention projection is square, so that it shows the width of the model.
    square = next((name for name in wrong if name.endswith("self_attn.q")), None)
    if square is not None and lora[square][1] != model[square][1]:
        raise CheckpointError(
            f"lora {path} is for a model of width {_describe_width(lora[square][1])}; this model's width is "
            f"{_describe_width(model[square][1])}. Use a LoRA that was made for this model"
        )
    if wrong:
        differences = summarize_names(f"{name} {list(lora[name])} instead of {list(model[name])}" for name in wrong)
        raise CheckpointError(
            f"lora {path} has {len(wrong)} layers of another shape [out, in] than the model: {differences}. "
            "Use a LoRA that was made for this model"
        )
    if not lora.keys() & model.keys():
        raise CheckpointError(_fits_none(path, lora, model))


def _fits_none(path: Path, lora: Mapping[str, tuple[int, ...]], model: Mapping[str, tuple[int, ...]]) -> str:
    names = f"its first names: {summarize_names(lora)}"
    if set(lora.values()) <= {tuple(shape) for shape in model.values()}:
        return (
            f"lora {path}: the naming of its layers is not known, though their shapes are the model's ({names}); known "
            "are Wan's names (blocks.0.self_attn.q), diffusers' (blocks.0.attn1.to_q), and kohya's and LyCORIS's "
            "(lora_unet_blocks_0_self_attn_q)"
        )
    return (
        f"lora {path} fits none of the model's {len(model)} layers: it was made for another model, or its naming is "
        f"not known ({names})"
    )


def _describe_width(width: int) -> str:
    return f"{width} ({MODEL_BY_WIDTH[width]})" if width in MODEL_BY_WIDTH else str(width)


def _format_range(numbers: Collection[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
