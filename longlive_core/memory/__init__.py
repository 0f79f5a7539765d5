"""The KV cache: which blocks stay in the window, how their K/V are stored, and the K/V of prompts."""

from .block_cache import BlockKVCache
from .config import DEFAULT_MEMORY, RECALL_POSITIONS, MemoryConfig
from .film_cache import FilmKVCache
from .formats import ALL, KV_FORMATS, PoolSpec
from .pool import PoolShape
from .pools import Pools
from .prompts import PromptKV, TextEncoder
from .window import Window, WindowState, original_of

__all__ = [
    "ALL",
    "DEFAULT_MEMORY",
    "KV_FORMATS",
    "RECALL_POSITIONS",
    "BlockKVCache",
    "FilmKVCache",
    "MemoryConfig",
    "PoolShape",
    "PoolSpec",
    "Pools",
    "PromptKV",
    "TextEncoder",
    "Window",
    "WindowState",
    "original_of",
]
