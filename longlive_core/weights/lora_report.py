"""What a LoRA does to a model: the layers it changes, those it leaves, and what of it has no use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .names import summarize_names
from .tensor_source import CheckpointError

# Widths of Wan transformers that people have LoRAs for.
MODEL_BY_WIDTH = {1536: "Wan2.1 1.3B or LongLive 1.0", 3072: "Wan2.2 TI2V 5B, LongLive 2.0", 5120: "Wan 14B"}


@dataclass(frozen=True, slots=True)
class LoraReport:
    """`applied`: layers that are changed; `missing`: linear layers of the model's blocks that the LoRA does not name;
    `unused`: what the LoRA has and the model has not, and tensors that are no LoRA of a linear layer.

    `ranks` and `alphas` are those of the applied layers, each once, rising.
    """

    applied: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]

    def text(self) -> str:
        """As in `300 of 300 layers; rank 128, alpha 128; unused: none`."""
        total = len(self.applied) + len(self.missing)
        missing = f"; without change: {summarize_names(self.missing)}" if self.missing else ""
        return (
            f"{len(self.applied)} of {total} layers; rank {_span(self.ranks)}, alpha {_span(self.alphas)}{missing}; "
            f"unused: {summarize_names(self.unused)}"
        )


def check_shapes(path: Path, lora: Mapping[str, tuple[int, int]], model: Mapping[str, tuple[int, ...]]) -> None:
    """Raises CheckpointError where layers of both differ in shape [out, in], or where they share none."""
    wrong = [name for name, shape in lora.items() if name in model and tuple(model[name]) != shape]
    square = next((name for name in wrong if name.endswith("self_attn.q")), None)
    if square is not None and lora[square][1] != model[square][1]:
        raise CheckpointError(
            f"lora {path} is for a model of width {_width(lora[square][1])}; this model's width is "
            f"{_width(model[square][1])}. Get the LoRA that was made for this model"
        )
    if wrong:
        shown = summarize_names(f"{name} {list(lora[name])} instead of {list(model[name])}" for name in wrong)
        raise CheckpointError(
            f"lora {path} has {len(wrong)} layers of another shape [out, in] than the model: {shown}. "
            "Get the LoRA that was made for this model"
        )
    if not lora.keys() & model.keys():
        raise CheckpointError(
            f"lora {path} fits none of the model's {len(model)} layers: it is for another model "
            f"(first names {summarize_names(lora)})"
        )


def _width(width: int) -> str:
    return f"{width} ({MODEL_BY_WIDTH[width]})" if width in MODEL_BY_WIDTH else str(width)


def _span(numbers: Iterable[float]) -> str:
    every = sorted(set(numbers))
    return f"{every[0]:g}" if len(every) == 1 else f"{every[0]:g} to {every[-1]:g}"
