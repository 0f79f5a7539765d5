"""Removes from a prompt what the front-end adds for itself, so that ComfyUI's cache knows the same graph again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

# The front-end stores its previews as widgets, and sends them as inputs of any node that has shown one.
VIDEO_PREVIEW, PREVIEWS = "video-preview", "$$"


class FrontEndKeys:
    """A handler of prompts, for `PromptServer.add_on_prompt_handler`.

    Our nodes keep the inputs of their schema. Other nodes, which may be before ours in the graph and may take inputs
    that no schema names, lose the front-end's previews only.
    """

    def __init__(self, nodes: list[type[io.ComfyNode]]) -> None:
        schemas = [node.define_schema() for node in nodes]
        self._inputs = {schema.node_id: {one.id for one in schema.inputs} for schema in schemas}

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Returns the request without these keys; a malformed one unchanged, which the host refuses."""
        prompt = request.get("prompt")
        if not isinstance(prompt, Mapping):
            return request
        return {**request, "prompt": {key: self._cleaned(node) for key, node in prompt.items()}}

    def _cleaned(self, node: Any) -> Any:  # noqa: ANN401 (anything that JSON can hold)
        if not isinstance(node, Mapping) or not isinstance(node.get("inputs"), Mapping):
            return node
        known = self._inputs.get(str(node.get("class_type")))
        inputs = node["inputs"].items()
        kept = {name: value for name, value in inputs if not _is_preview(name) and (known is None or name in known)}
        return {**node, "inputs": kept}


def _is_preview(name: str) -> bool:
    return name == VIDEO_PREVIEW or name.startswith(PREVIEWS)
