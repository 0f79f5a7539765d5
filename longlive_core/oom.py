"""Work that ran out of memory, tried once more with what could be freed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

# How allocators say it where they raise a plain RuntimeError: CUDA and its libraries, and the CPU's.
OOM_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
    "cudaerrormemoryallocation",
)


class OutOfMemoryError(RuntimeError):
    """Memory was not enough, and not after freeing either. What was made before is kept."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host has no memory left."""
    if isinstance(error, OutOfMemoryError | MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error).lower() for saying in OOM_MESSAGES)


def free_memory() -> None:
    """Gives back what nobody holds: Python's cycles, and blocks that the CUDA allocator keeps for later."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def retry_on_oom(work: Callable[[], T], free: Callable[[], None] | None = None, what: str = "") -> T:
    """What `work` returns; where it runs out of memory, `free` is called and the work done once more.

    The work must be one that can be begun anew. free: `free_memory` by default. what: names the work, as in
    "decoding latent frame 7". Raises OutOfMemoryError after the second time; any other error passes through.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
    # Only here, outside: the error's traceback held everything that the first attempt had made.
    (free or free_memory)()
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        said = str(error).strip().partition("\n")[0]
        raise OutOfMemoryError(
            f"{what or 'this'} ran out of memory, and once more after freeing ({said}). What is made is kept. Make the "
            "film smaller, keep its memory in fewer bits (kv_format nvfp4), or decode in turn with sampling "
            "(decode sequential)"
        ) from error
