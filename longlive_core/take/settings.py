"""The settings that a take records: everything that changes a block's bits, and the machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Setting = str | int | float | bool | None
Settings = Mapping[str, Setting]
"""Name → value of every setting that changes a block's bits."""

# The values of settings that takes of older versions do not record. They are recorded only if they differ from these,
# so that such a take stays a take of the same film.
UNRECORDED: Settings = {
    "seam": "plain",
    "attention": "usual",
    "recall_position": "original",
    "independent_shots": False,
    "cast": "",
}
# Recorded settings that do not change the bits of a block: where files lie, the frame rate, and the fingerprint of the
# text of a film made in ComfyUI, which depends on all its prompts.
WITHOUT_BITS = ("model", "lora", "fps", "text")
# The recorded `model` of a take that was made in ComfyUI, where a MODEL does not know its file.
COMFYUI = "ComfyUI"


def machine_settings(device: str | None = None) -> Settings:
    """The properties of the machine that change bits. device: the name of the sampling device, if it can vary."""
    machine: dict[str, Setting] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
    }
    return machine if device is None else {**machine, "device": device}


def machine_notes(recorded: Settings, machine: Settings) -> list[str]:
    """Notes if blocks sampled on this machine may differ in their last bits from those of the recorded machine."""
    changed = [f"{name} {was} (now {machine.get(name)})" for name, was in recorded.items() if was != machine.get(name)]
    if not changed:
        return []
    return [f"the take was started with {', '.join(changed)}: blocks sampled now may differ in their last bits"]


def recorded_only(settings: Settings) -> Settings:
    """Returns the settings that a take records: all but those with a value of `UNRECORDED`."""
    return {name: value for name, value in settings.items() if name not in UNRECORDED or value != UNRECORDED[name]}


def with_unrecorded(settings: Settings) -> Settings:
    """Returns the settings of a take with those that it does not record."""
    return {**UNRECORDED, **settings}


def changes_bits(one: Settings, other: Settings) -> bool:
    """Returns whether two films have other bits in blocks of the same text, seed and place."""
    first, second = with_unrecorded(one), with_unrecorded(other)
    return any(first.get(name) != second.get(name) for name in {*first, *second} if name not in WITHOUT_BITS)


def fingerprint(parts: Iterable[bytes], digits: int = 16) -> str:
    """Returns the first hexadecimal digits of the SHA-256 of all parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:digits]


def tensor_bytes(value: Tensor) -> bytes:
    """Returns the raw bytes of a tensor of any shape, dtype and device."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
