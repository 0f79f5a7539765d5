"""The extension and the list of its nodes. Only ComfyUI imports this package."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from server import PromptServer

from .async_decode import AsyncDecode
from .cast import CastNode, SaveCast
from .checks import checks_wires
from .convert import ConvertCheckpoint
from .extend import ExtendVideo
from .front_end_keys import FrontEndKeys
from .loaders import MiniModel, ModelLoader
from .lora import DMDLora
from .multi_gpu import MultiGPU
from .retake import LoadTake, Retake
from .routes import add_routes
from .sampler import StreamingSampler
from .save_take import SaveTake
from .shot import ShotNode
from .shot_script import EncodeShots, ShotScriptNode
from .shot_versions import ShotVersionsNode
from .sink_memory import SinkMemory
from .storyboard import StoryboardNode
from .stream_outputs import StreamToImages, StreamToLatent
from .train_lora import TrainLora

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
    ShotVersionsNode,
    StoryboardNode,
    TrainLora,
    MultiGPU,
    CastNode,
    SaveCast,
]


class LongLiveExtension(ComfyExtension):
    """The extension that ComfyUI asks for its nodes."""

    async def on_load(self) -> None:
        add_routes(PromptServer.instance)
        PromptServer.instance.add_on_prompt_handler(FrontEndKeys(NODES))

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack, in menu order."""
        return [checks_wires(node) for node in NODES]
