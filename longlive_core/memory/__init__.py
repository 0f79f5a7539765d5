"""The KV cache: which blocks stay in the window, how their K/V are stored, and the K/V of prompts."""

from .block_cache import BlockKVCache, RelativeRope
from .config import DEFAULT_MEMORY, MemoryConfig
from .film_cache import CallKV, FilmKVCache
from .formats import KV_FORMATS, make_pools
from .pool import DensePool, Pool, PoolShape
from .prompts import PromptCache, PromptKV, TextEncoder
from .quantized_pool import QuantizedPool, Smoothing
from .window import Window, WindowState

__all__ = [
    "DEFAULT_MEMORY",
    "KV_FORMATS",
    "BlockKVCache",
    "CallKV",
    "DensePool",
    "FilmKVCache",
    "MemoryConfig",
    "Pool",
    "PoolShape",
    "PromptCache",
    "PromptKV",
    "QuantizedPool",
    "RelativeRope",
    "Smoothing",
    "TextEncoder",
    "Window",
    "WindowState",
    "make_pools",
]
