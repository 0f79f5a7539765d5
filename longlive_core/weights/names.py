"""Names of tensors: Wan's names without what trainers and other programs add to them."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Parts that wrappers of modules add anywhere in a name.
WRAPPERS = re.compile(r"_(?:fsdp_wrapped_module|checkpoint_wrapped_module|orig_mod|forward_module)\.")

# Everything before the first of Wan's own names was added by a trainer or another program.
FRONT = re.compile(
    r"(?:[^.]+\.)*?(?=(?:blocks\.\d+|patch_embedding|text_embedding|time_embedding|time_projection|head)\.|scaled_fp8$)"
)

# Names that an error message lists at most.
MAX_NAMES = 8


def strip_prefixes(name: str) -> str:
    """Returns Wan's name of a tensor: `model.diffusion_model._orig_mod.blocks.0.…` becomes `blocks.0.…`."""
    name = WRAPPERS.sub("", name)
    front = FRONT.match(name)
    return name[front.end() :] if front else name


def summarize_names(names: Iterable[str]) -> str:
    """Joins the first names with commas and counts the others; `none` without names."""
    names = list(names)
    first = ", ".join(names[:MAX_NAMES]) or "none"
    return f"{first} and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else first
