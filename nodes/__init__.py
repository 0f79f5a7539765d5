"""The extension and its nodes: the table of contents of the pack. Imported by ComfyUI only."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

NODES: list[type[io.ComfyNode]] = []


class LongLiveExtension(ComfyExtension):
    """What ComfyUI asks for the node list."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack, in menu order."""
        return NODES
