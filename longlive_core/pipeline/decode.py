"""The stages behind sampling: blocks become frames, frames a film's file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..types import Block, BlockSpec
from ..vae import DecodeStream, HostCopy
from ..video import FilmWriter

# Decoded latent frames that may wait to be written: half a block.
DEPTH = 4


class DecodedFrame(NamedTuple):
    """A decoded latent frame of a block, `first` or `last` of it."""

    block: BlockSpec
    first: bool
    last: bool
    frames: HostCopy


def decode(
    blocks: Iterable[Block],
    stream: DecodeStream,
    should_stop: Callable[[], bool] = lambda: False,
    turn: AbstractContextManager[Any] | None = None,
) -> Iterator[DecodedFrame]:
    """The blocks' latent frames, each handed on when it is decoded. turn: entered for each; see `stream` for errors."""
    for block in blocks:
        latents = block.latents.split(1, dim=2)
        for index, latent in enumerate(latents):
            if should_stop():
                return
            with turn or nullcontext():
                stream.feed(latent)
            for frames in stream.copies():
                yield DecodedFrame(block.spec, index == 0, index + 1 == len(latents), frames)


def write(pieces: Iterable[DecodedFrame], writer: FilmWriter) -> Iterator[tuple[DecodedFrame, Tensor]]:
    """The pieces and their frames `[T, H, W, 3]` uint8 as they are written, blocks beginning with key frames."""
    for piece in pieces:
        if piece.first:
            writer.start_block()
        frames = piece.frames.wait()
        writer.write(frames)
        yield piece, frames


def decoder_cuda_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA stream to decode in beside the sampler's; None where there are none. Work begun before it is awaited."""
    if device.type != "cuda":
        return None
    cuda_stream = torch.cuda.Stream(device)
    cuda_stream.wait_stream(torch.cuda.current_stream(device))
    return cuda_stream
