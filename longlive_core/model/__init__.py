"""The transformer: Wan2.2's, made causal by the memory that is handed to it."""

from .config import WAN22_TI2V_5B, WanConfig
from .flow import FlowModel
from .layers import KeyValue, KVCache, Projected, TextKVCache
from .rope import Rope, rope_angles
from .transformer import CausalWan

__all__ = [
    "WAN22_TI2V_5B",
    "CausalWan",
    "FlowModel",
    "KVCache",
    "KeyValue",
    "Projected",
    "Rope",
    "TextKVCache",
    "WanConfig",
    "rope_angles",
]
