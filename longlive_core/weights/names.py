"""Names of tensors: Wan's names without the prefixes of trainers and other programs."""

from __future__ import annotations

from collections.abc import Iterable

# Prefixes that trainers and other programs add to Wan's names, in any order and number.
PREFIXES = ("model.", "diffusion_model.", "generator.", "generator_ema.", "_fsdp_wrapped_module.", "module.")

# Names that an error message lists at most.
MAX_NAMES = 8


def strip_prefixes(name: str, prefixes: tuple[str, ...] = PREFIXES) -> str:
    """Returns Wan's name of a tensor: `model.diffusion_model.blocks.0.…` becomes `blocks.0.…`."""
    name = name.replace("_fsdp_wrapped_module.", "")
    while (prefix := next((p for p in prefixes if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def summarize_names(names: Iterable[str]) -> str:
    """Joins the first names with commas and counts the others; `none` without names."""
    names = list(names)
    first = ", ".join(names[:MAX_NAMES]) or "none"
    return f"{first} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else first
