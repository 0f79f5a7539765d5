"""Running work once more after it runs out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")

# Allocators that raise a plain RuntimeError are known by their message: CUDA, its libraries, and the CPU allocator.
OOM_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
    "cudaerrormemoryallocation",
)


class OutOfMemoryError(RuntimeError):
    """Work ran out of memory twice, the second time after memory was freed. Earlier results are intact."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports that the device or the host has no memory left."""
    if isinstance(error, OutOfMemoryError | MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in OOM_MESSAGES)


def free_memory() -> None:
    """Collects Python's reference cycles and returns the CUDA allocator's cached blocks to the driver."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def retry_on_oom(work: Callable[[], T], free: Callable[[], None] | None = None, what: str = "") -> T:
    """Returns the result of `work`. If it runs out of memory, calls `free` and runs it once more.

    work: must be safe to run again from the start. free: `free_memory` by default. what: the name of the work in the
    error message, such as "decoding latent frame 7". Raises OutOfMemoryError if the second attempt runs out of memory
    too; any other error passes through.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
    # Outside the `except` block, because the traceback keeps every tensor of the first attempt alive inside it.
    (free or free_memory)()
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise OutOfMemoryError(
            f"{what or 'this'} ran out of memory, and again after memory was freed ({reason}). Finished blocks are "
            "kept. Use a smaller size, a more compact KV cache (kv_format nvfp4), or alternate sampling and decoding "
            "(decode sequential)"
        ) from error
