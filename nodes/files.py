"""Checks of files that a user picks from a list."""

from __future__ import annotations

from collections.abc import Callable

import folder_paths

from .inputs import error_or_true


def check_file(folder: str, name: str | None, read: Callable[[str], object]) -> bool | str:
    """Returns True, or an error message for a file of `models/<folder>`. name: None if it comes over a wire."""
    if name is None:
        return True
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        return f"{name} is not in models/{folder}; refresh the list (R) or download the file"
    return error_or_true(lambda: read(path))
