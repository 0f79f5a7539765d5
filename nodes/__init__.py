"""The extension and its nodes: the table of contents of the pack. Imported by ComfyUI only."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .convert import ConvertCheckpoint
from .decoder import AsyncDecode
from .extend import ExtendVideo
from .live import open_studio
from .loaders import MiniModel, ModelLoader
from .lora import DMDLora
from .memory import SinkMemory
from .outputs import StreamToImages, StreamToLatent
from .retake import LoadTake, Retake
from .sampler import StreamingSampler
from .shot import ShotNode
from .shots import EncodeShots, ShotScriptNode
from .takes import SaveTake

NODES: list[type[io.ComfyNode]] = [
    ModelLoader,
    MiniModel,
    DMDLora,
    ShotScriptNode,
    EncodeShots,
    SinkMemory,
    StreamingSampler,
    AsyncDecode,
    StreamToLatent,
    StreamToImages,
    ConvertCheckpoint,
    ShotNode,
    ExtendVideo,
    SaveTake,
    LoadTake,
    Retake,
]


class LongLiveExtension(ComfyExtension):
    """What ComfyUI asks for the node list."""

    async def on_load(self) -> None:
        open_studio(PromptServer.instance)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack, in menu order."""
        return NODES
