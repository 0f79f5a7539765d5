"""Reports which layers of a model a LoRA changes, and checks that their shapes fit."""

from __future__ import annotations

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

    applied: the layers that the LoRA changes. missing: linear layers of the model's blocks that the LoRA lacks.
    unused: layers that the model lacks, and tensors that are not part of a LoRA of a linear layer.
    ranks, alphas: the different values of the applied layers, in rising order.
    """

    applied: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]

    def text(self) -> str:
        """Formats the report as in `300 of 300 layers; rank 128, alpha 128; unused: none`."""
        applied, total = len(self.applied), len(self.applied) + len(self.missing)
        scale = f"rank {_format_range(self.ranks)}, alpha {_format_range(self.alphas)}"
        missing = f"; unchanged: {summarize_names(self.missing)}" if self.missing else ""
        return f"{applied} of {total} layers; {scale}{missing}; unused: {summarize_names(self.unused)}"


def check_shapes(path: Path, lora: Mapping[str, tuple[int, int]], model: Mapping[str, tuple[int, ...]]) -> None:
    """Raises CheckpointError if a layer has another shape in the model, or if the model has none of the LoRA's layers.

    lora, model: layer -> shape [out, in].
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
        raise CheckpointError(
            f"lora {path} fits none of the model's {len(model)} layers: it was made for another model "
            f"(its first names: {summarize_names(lora)})"
        )


def _describe_width(width: int) -> str:
    return f"{width} ({MODEL_BY_WIDTH[width]})" if width in MODEL_BY_WIDTH else str(width)


def _format_range(numbers: Collection[float]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
