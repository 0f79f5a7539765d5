"""What a film remembers: which blocks are kept, where their keys and values live, and those of the prompts."""

from .config import DEFAULT_MEMORY, MemoryConfig
from .film import CallMemory, FilmMemory
from .frames import BlockMemory, KeyRope
from .pool import KV_FORMATS, DensePool, Pool, PoolShape, make_pool
from .text import PromptKeys, PromptMemory, TextEncoder
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
    "TextEncoder",
    "Window",
    "WindowState",
    "make_pool",
]
