"""Checks of inputs before a workflow runs. What comes over a wire is None here; it is checked when the node runs."""

from __future__ import annotations

from collections.abc import Callable

import folder_paths

from ..longlive_core.types import PixelShape
from .inputs import SIZE_UNIT


def check_file(folder: str, name: str | None, read: Callable[[str], object]) -> bool | str:
    """Returns True, or an error message for a file of `models/<folder>`. name: None if it comes over a wire."""
    if name is None:
        return True
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        return f"{name} is not in models/{folder}; refresh the list (R) or download the file"
    return error_or_true(lambda: read(path))


def check_sides(width: int | None, height: int | None) -> None:
    """Raises ValueError if a side is not a whole number of latent cells. None: the side comes over a wire."""
    _ = PixelShape(1, 1, height or SIZE_UNIT, width or SIZE_UNIT).latent


def error_or_true(check: Callable[[], object]) -> bool | str:
    """Returns what `validate_inputs` returns: True, or the message of the ValueError or OSError that `check` raises."""
    try:
        check()
    except (ValueError, OSError) as error:
        return str(error)
    return True
