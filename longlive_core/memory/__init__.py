"""What a film remembers: which blocks are kept, where their keys and values live, and those of the prompts."""

from .block_memory import BlockMemory, KeyRope
from .config import DEFAULT_MEMORY, MemoryConfig
from .film_memory import CallMemory, FilmMemory
from .formats import KV_FORMATS, make_pools
from .pool import DensePool, Pool, PoolShape
from .prompts import PromptKeys, PromptMemory, TextEncoder
from .quantized_pool import QuantizedPool, Smoothing
from .window import Window, WindowState

__all__ = [
    "DEFAULT_MEMORY",
    "KV_FORMATS",
    "BlockMemory",
    "CallMemory",
    "DensePool",
    "FilmMemory",
    "KeyRope",
    "MemoryConfig",
    "Pool",
    "PoolShape",
    "PromptKeys",
    "PromptMemory",
    "QuantizedPool",
    "Smoothing",
    "TextEncoder",
    "Window",
    "WindowState",
    "make_pools",
]
