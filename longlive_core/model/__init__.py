"""The transformer: Wan2.2's, made causal by the memory that is handed to it."""

from .config import WAN22_TI2V_5B, WanConfig
from .flow import FlowModel
from .layers import FrameMemory, KeyValue, Projected, TextMemory
from .rope import Rope, rope_angles
from .transformer import CausalWan

__all__ = [
    "WAN22_TI2V_5B",
    "CausalWan",
    "FlowModel",
    "FrameMemory",
    "KeyValue",
    "Projected",
    "Rope",
    "TextMemory",
    "WanConfig",
    "rope_angles",
]
