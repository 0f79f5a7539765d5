"""What a film remembers: which blocks are kept, where their keys and values live, and those of the prompts."""

from .compressed import CompressedPool, Smoothing
from .config import DEFAULT_MEMORY, MemoryConfig
from .film import CallMemory, FilmMemory
from .formats import KV_FORMATS, make_pools
from .frames import BlockMemory, KeyRope
from .pool import DensePool, Pool, PoolShape
from .text import PromptKeys, PromptMemory, TextEncoder
from .window import Window, WindowState

__all__ = [
    "DEFAULT_MEMORY",
    "KV_FORMATS",
    "BlockMemory",
    "CallMemory",
    "CompressedPool",
    "DensePool",
    "FilmMemory",
    "KeyRope",
    "MemoryConfig",
    "Pool",
    "PoolShape",
    "PromptKeys",
    "PromptMemory",
    "Smoothing",
    "TextEncoder",
    "Window",
    "WindowState",
    "make_pools",
]
