"""The decoding stage: decodes blocks into frames, except for blocks that the film's file already has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..transfer import HostCopy
from ..types import Block, BlockSpec
from ..vae import DecodeStream

# The number of decoded latent frames that may wait to be written: half a block.
QUEUE_DEPTH = 4


class DecodedFrame(NamedTuple):
    """A decoded latent frame; `first` and `last` say whether it is the first or the last one of its block.

    frames: the video frames `[T, H, W, 3]` uint8; None if the file already has the whole block and nothing was decoded.
    """

    block: BlockSpec
    first: bool
    last: bool
    frames: HostCopy | None


def decode(
    blocks: Iterable[Block],
    stream: DecodeStream,
    should_stop: Callable[[], bool] = lambda: False,
    holding: Callable[[], AbstractContextManager[Any]] = nullcontext,
    *,
    is_written: Callable[[Block], bool] = lambda _: False,
    reach: int = 0,
) -> Iterator[DecodedFrame]:
    """Decodes blocks (latents `[1, C, F, H, W]`) one latent frame at a time; raises what the stream raises.

    holding: makes a context to submit the work of a latent frame in, such as a lock. is_written: whether the file
    already has the block's frames; called once for every block, in order. reach: the number of preceding blocks that
    the pixels of a block depend on. After a written block, the stream first decodes that many blocks again, so that the
    frames equal those of decoding every block, bit for bit.
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
                    with holding():
                        stream.feed(latent)
                    stream.copies()
                is_warm = True
            frames = block.latents.split(1, dim=2)
            for index, latent in enumerate(frames):
                if should_stop():
                    return
                with holding():
                    stream.feed(latent)
                for copy in stream.copies():
                    yield DecodedFrame(block.spec, index == 0, index + 1 == len(frames), copy)
        recent.append(block.latents)


def decoder_cuda_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Makes a CUDA stream for decoding, which waits for the work queued so far; None on other devices.

    Its kernels go before those of sampling: a frame is needed now, a block only after all its steps.
    """
    if device.type != "cuda":
        return None
    cuda_stream = torch.cuda.Stream(device, priority=-1)
    cuda_stream.wait_stream(torch.cuda.current_stream(device))
    return cuda_stream
