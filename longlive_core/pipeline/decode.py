"""Decoding: blocks become frames, except blocks that the film's file has already."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..types import Block, BlockSpec
from ..vae import DecodeStream, HostCopy

# Decoded latent frames that may wait to be written: half a block.
QUEUE_DEPTH = 4


class DecodedFrame(NamedTuple):
    """A decoded latent frame of a block, the `first` or `last` of it.

    frames None: the file has the whole block already, and nothing was decoded.
    """

    block: BlockSpec
    first: bool
    last: bool
    frames: HostCopy | None


def decode(
    blocks: Iterable[Block],
    stream: DecodeStream,
    should_stop: Callable[[], bool] = lambda: False,
    device_lock: AbstractContextManager[Any] | None = None,
    *,
    is_written: Callable[[Block], bool] = lambda _: False,
    reach: int = 0,
) -> Iterator[DecodedFrame]:
    """Decodes the blocks one latent frame at a time. device_lock: held for each; see `stream` for errors.

    is_written: whether the file has the block's frames already; asked once for every block, in order. reach: how many
    blocks before a block its pixels depend on. Where decoding resumes behind a written block, the stream first decodes
    that many blocks again, so that the frames equal those of decoding everything, bit for bit.
    """
    recent: deque[Tensor] = deque(maxlen=reach)
    is_warm = True
    for block in blocks:
        if is_written(block):
            if should_stop():
                return
            is_warm = False
            yield DecodedFrame(block.spec, True, True, None)
        else:
            if not is_warm:
                stream.reset()
                for latent in (frame for latents in recent for frame in latents.split(1, dim=2)):
                    if should_stop():
                        return
                    stream.feed(latent)
                    stream.copies()
                is_warm = True
            frames = block.latents.split(1, dim=2)
            for index, latent in enumerate(frames):
                if should_stop():
                    return
                with device_lock or nullcontext():
                    stream.feed(latent)
                for copy in stream.copies():
                    yield DecodedFrame(block.spec, index == 0, index + 1 == len(frames), copy)
        recent.append(block.latents)


def decoder_cuda_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA stream that decodes beside the sampler's, behind the work queued so far; None on other devices."""
    if device.type != "cuda":
        return None
    cuda_stream = torch.cuda.Stream(device)
    cuda_stream.wait_stream(torch.cuda.current_stream(device))
    return cuda_stream
