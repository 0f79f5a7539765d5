"""A decoder whose steady latent frames are a CUDA graph: the host starts a whole latent frame by one call.

A latent frame is steady once its state has the shapes of the next one. The graph then reads and writes one state:

    latent frame, state → video, state
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.cuda_graph import Capture
from .layers import State
from .stream import ChunkDecoder

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Graph:
    """replay: decodes `latents` with `state`. video: where the result is."""

    latents: Tensor
    state: State
    replay: Callable[[], None] | None = None
    video: Tensor | None = None


class GraphedDecoder:
    """A `ChunkDecoder` for one `DecodeStream`, which decodes what `vae` decodes. Other chunks run as they are.

    Once a latent frame cannot be recorded, all of them run as they are.
    """

    def __init__(self, vae: ChunkDecoder, capture: Capture) -> None:
        """vae: its states are tuples of tensors, as those of `WanVAE`."""
        self._vae = vae
        self._capture: Capture | None = capture
        self._graph: _Graph | None = None

    @property
    def reach(self) -> int:
        """See `ChunkDecoder`."""
        return self._vae.reach

    def to_vae_space(self, latents: Tensor) -> Tensor:
        """See `ChunkDecoder`."""
        return self._vae.to_vae_space(latents)

    def decode_chunk(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `ChunkDecoder`."""
        if self._capture is None or state is None or latents.shape[2] != 1:
            return self._vae.decode_chunk(latents, state)
        if self._graph is None:
            shapes = _shapes(state)
            video, after = self._vae.decode_chunk(latents, state)
            if _shapes(after) == shapes:
                # What a first call makes, such as cuDNN's plans, is there now.
                self._graph = _Graph(latents.clone(), after)
            return video, after
        if latents.shape != self._graph.latents.shape or _shapes(state) != _shapes(self._graph.state):
            return self._vae.decode_chunk(latents, state)
        return self._replayed(self._graph, latents, state, self._capture)

    def _replayed(self, graph: _Graph, latents: Tensor, state: State, capture: Capture) -> tuple[Tensor, State]:
        graph.latents.copy_(latents)
        _copy(state, graph.state)
        if graph.replay is None:
            try:
                self._record(graph, capture)
            except RuntimeError as error:
                self._capture = self._graph = None
                log.info("the decoder has no CUDA graphs: %s", str(error).partition("\n")[0])
                return self._vae.decode_chunk(latents, state)
        assert graph.replay is not None and graph.video is not None
        graph.replay()
        return graph.video.clone(), graph.state

    def _record(self, graph: _Graph, capture: Capture) -> None:
        """Records a latent frame. Raises RuntimeError if that is not possible."""

        def work() -> None:
            graph.video, after = self._vae.decode_chunk(graph.latents, graph.state)
            _copy(after, graph.state)

        graph.replay = capture(work)


def _shapes(state: State) -> list[torch.Size]:
    return [x.shape for x in state]


def _copy(source: State, target: State) -> None:
    """Copies a state, but for tensors that both have."""
    for own, given in zip(target, source, strict=True):
        if own is not given:
            own.copy_(given)
