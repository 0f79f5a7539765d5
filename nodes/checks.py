"""Checks of inputs before a workflow runs. What comes over a wire is None then; it is checked when the node runs.

`validate_inputs` raises instead of returning a text: of an error that is raised, the front-end shows the text at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import folder_paths
from comfy_api.latest import io
from comfy_execution.validation import validate_node_input

from ..longlive_core.types import PixelShape
from .inputs import SIZE_UNIT

FILE_LISTS = ("model_name", "lora_name", "take", "data", "cast_name")


def check_file(folder: str, name: str | None, read: Callable[[str], object]) -> bool:
    """Returns True. Raises ValueError or OSError for a file of `models/<folder>` that is absent or that `read` refuses.

    name: None if it comes over a wire.
    """
    if name is None:
        return True
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise ValueError(f"{name} is not in models/{folder}; refresh the list (R) or download the file")
    return passed(read(path))


def check_sides(width: int | None, height: int | None) -> None:
    """Raises ValueError if a side is not a whole number of latent cells. None: the side comes over a wire."""
    _ = PixelShape(1, 1, height or SIZE_UNIT, width or SIZE_UNIT).latent


def check_wires(node: type[io.ComfyNode], wires: Mapping[str, str]) -> None:
    """Raises ValueError for a wire of another type than its input has. The host leaves it to a node that asks for them.

    wires: the type of what is connected to each input.
    """
    inputs = {one.id: one.get_io_type() for one in node.define_schema().inputs}
    for name, kind in wires.items():
        if name in inputs and not validate_node_input(kind, inputs[name]):
            raise ValueError(f"{name} takes {inputs[name]}, not {kind}: connect another output")


def passed(_: object = None) -> bool:
    """Returns what `validate_inputs` returns after its checks, whatever they return."""
    return True


def checks_wires(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Makes `execute` raise ValueError for a value outside its widget's range, which the host lets over a wire."""
    execute, widgets = node.execute.__func__, node.define_schema().inputs

    @wraps(execute)
    def checked(cls: type[io.ComfyNode], **values: Any) -> io.NodeOutput:  # noqa: ANN401
        for widget in widgets:
            if widget.id in values:
                check_value(widget, values[widget.id])
        return execute(cls, **values)

    node.execute = classmethod(checked)
    return node


def check_value(widget: io.Input, value: Any) -> None:  # noqa: ANN401
    """Raises ValueError that names the input, its value and what it may be. Lists of files have checks of their own."""
    if isinstance(widget, io.Combo.Input):
        if widget.id not in FILE_LISTS and value not in widget.options:
            raise ValueError(f"{widget.id} is {value!r}: choose one of {', '.join(map(str, widget.options))}")
    elif isinstance(widget, io.Int.Input | io.Float.Input) and not (
        isinstance(value, int | float) and widget.min <= value <= widget.max
    ):
        raise ValueError(f"{widget.id} is {value!r}: choose {widget.min} to {widget.max}")
