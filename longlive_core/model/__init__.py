"""The Wan2.2 transformer, made causal by the KV cache that is passed to it."""

from .config import WAN22_TI2V_5B, WanConfig
from .flow import FlowModel
from .kv_cache import KeyValue, KVCache, Projected, TextKVCache
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
