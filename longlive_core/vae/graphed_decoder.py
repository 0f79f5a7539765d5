"""A decoder whose steady latent frames are CUDA graphs: the host starts a whole latent frame by one call.

A latent frame is steady once its state has the shapes of the next one. Two graphs take turns, so that the state before
a latent frame stays as it was, and a frame that runs out of memory can be decoded again:

    graph 0    latent frame, state A → video, state B
    graph 1    latent frame, state B → video, state A
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..model.cuda_graph import Capture
from .layers import State
from .stream import ChunkDecoder

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Graph:
    """replay: decodes what is in the inputs. video: where the result is."""

    replay: Callable[[], None]
    video: Tensor


class GraphedDecoder:
    """A `ChunkDecoder` for one `DecodeStream`, which decodes what `vae` decodes. Other chunks run as they are.

    Once a latent frame cannot be recorded, all of them run as they are.
    """

    def __init__(self, vae: ChunkDecoder, capture: Capture) -> None:
        """vae: its states are tuples of tensors, as those of `WanVAE`."""
        self._vae = vae
        self._capture: Capture | None = capture
        self._latents: Tensor | None = None
        self._states: list[State] = []
        self._graphs: list[_Graph | None] = [None, None]

    def to_vae_space(self, latents: Tensor) -> Tensor:
        """See `ChunkDecoder`."""
        return self._vae.to_vae_space(latents)

    def decode_chunk(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        """See `ChunkDecoder`. A state that a graph made is valid until the second latent frame after it."""
        if self._capture is None or state is None or latents.shape[2] != 1:
            return self._vae.decode_chunk(latents, state)
        if self._latents is None:
            video, after = self._vae.decode_chunk(latents, state)
            if [x.shape for x in after] == [x.shape for x in state]:
                self._allocate(latents, state)
            return video, after
        if latents.shape != self._latents.shape or [x.shape for x in state] != [x.shape for x in self._states[0]]:
            return self._vae.decode_chunk(latents, state)
        return self._replayed(latents, state, self._capture)

    def _allocate(self, latents: Tensor, state: State) -> None:
        """Makes the inputs of the graphs. What a first call makes, such as cuDNN's plans, is there now."""
        self._latents = latents.clone()
        self._states = [tuple(x.clone() for x in state) for _ in range(2)]

    def _replayed(self, latents: Tensor, state: State, capture: Capture) -> tuple[Tensor, State]:
        turn = 1 if state is self._states[1] else 0
        assert self._latents is not None
        self._latents.copy_(latents)
        if state is not self._states[turn]:
            _copy(state, self._states[turn])
        try:
            graph = self._graphs[turn] or self._record(turn, capture)
        except RuntimeError as error:
            self._capture = None
            self._graphs = [None, None]
            log.info("the decoder has no CUDA graphs: %s", str(error).partition("\n")[0])
            return self._vae.decode_chunk(latents, state)
        graph.replay()
        return graph.video.clone(), self._states[1 - turn]

    def _record(self, turn: int, capture: Capture) -> _Graph:
        """Records the latent frame from one state to the other. Raises RuntimeError if that is not possible."""
        results = list[Tensor]()

        def work() -> None:
            assert self._latents is not None
            video, after = self._vae.decode_chunk(self._latents, self._states[turn])
            _copy(after, self._states[1 - turn])
            results[:] = [video]

        replay = capture(work)
        self._graphs[turn] = graph = _Graph(replay, results[0])
        return graph


def _copy(source: State, target: State) -> None:
    for own, given in zip(target, source, strict=True):
        own.copy_(given)
