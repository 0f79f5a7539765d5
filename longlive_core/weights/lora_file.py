"""A LoRA file and its strength, as users name it: `style.safetensors:0.8`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from .tensor_source import CheckpointError

# peft and diffusers give every LoRA the same name, in a folder of its own.
COMMON_NAMES = ("adapter_model", "pytorch_lora_weights")


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA file and its strength; 1 is the strength that it was trained for."""

    path: Path
    strength: float = 1.0

    @classmethod
    def parse(cls, text: str, strength: float | None) -> LoraFile:
        """Reads FILE or FILE:STRENGTH; `strength`, else 1, is that of a file without its own.

        What exists is a file, and the colon of a Windows drive is no separator. Raises ValueError for a strength that
        is no finite number or that follows no name.
        """
        name, colon, number = text.rpartition(":")
        if not colon or len(name) == 1 or Path(text).exists() or re.search(r"[\\/]", number):
            return cls(Path(text), check_strength(1.0 if strength is None else strength))
        if not name or (name[-1] in "\\/" and not Path(name).is_dir()):
            raise ValueError(f"lora '{text}' names no file before its strength; write FILE:{number or '0.8'}")
        try:
            own = float(number)
        except ValueError:
            raise ValueError(f"lora '{text}': the strength '{number}' is no number; write {name}:0.8") from None
        return cls(Path(name), check_strength(own))

    def __str__(self) -> str:
        return f"{self.path}:{self.strength:g}"


def check_strength(strength: float) -> float:
    """Returns the strength. Raises ValueError if it is no finite number."""
    if not isfinite(strength):
        raise ValueError(f"strength {strength} must be a finite number; 1 is what a LoRA was trained for")
    return strength


def known_name(lora: Path) -> str:
    """The name by which a LoRA is known again: that of the file, or of its folder if all LoRAs have the file's name."""
    return lora.resolve().parent.name if lora.stem in COMMON_NAMES else lora.name


def check_not_merged(checkpoint: Path, merged: Collection[str], lora: Path) -> None:
    """Raises CheckpointError if a LoRA of this name is among those that are `merged` into a checkpoint already."""
    if known_name(lora) in merged:
        raise CheckpointError(
            f"checkpoint {checkpoint} has the lora {known_name(lora)} merged already, by its metadata: leave it out, "
            "use the checkpoint without it, or rename the file to add it a second time"
        )
