"""Names of tensors: Wan's own, whatever trainers and other programs put before them."""

from __future__ import annotations

from collections.abc import Iterable

# What trainers and other programs put before Wan's own names, in any order and number.
PREFIXES = ("model.", "diffusion_model.", "generator.", "generator_ema.", "_fsdp_wrapped_module.", "module.")

MAX_NAMES = 8


def strip_prefixes(name: str, prefixes: tuple[str, ...] = PREFIXES) -> str:
    """Wan's own name of a tensor: `model.diffusion_model.blocks.0.…` -> `blocks.0.…`."""
    name = name.replace("_fsdp_wrapped_module.", "")
    while (prefix := next((p for p in prefixes if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def summarize_names(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    every = list(names)
    shown = ", ".join(every[:MAX_NAMES]) or "none"
    return f"{shown} and {len(every) - MAX_NAMES} more" if len(every) > MAX_NAMES else shown
