"""Files a creator picks in a list."""

from __future__ import annotations

from collections.abc import Callable

import folder_paths

from ..longlive_core.weights import CheckpointError


def check_file(folder: str, name: str | None, read: Callable[[str], object]) -> bool | str:
    """True, or what is wrong with the file picked in `models/<folder>`; None is a name not known at the queue yet."""
    if name is None:
        return True
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        return f"{name} is not in models/{folder}; refresh the list (R) or download the file"
    try:
        read(path)
    except (CheckpointError, OSError) as error:
        return str(error)
    return True
