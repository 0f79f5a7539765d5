"""A GPU gets the clean pass of a block before the host waits for the block; shown on a CPU, which is told to do so."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.sampling.generate import Generation, NotFiniteError
from torch import Tensor

from ..conftest import Tiny
from .test_generate import Proxy

SHOTS = "A A |B B B"


def ahead(tiny: Tiny, model: Proxy) -> Generation:
    """A film whose clean passes run ahead."""
    film = tiny.generate(SHOTS, tiny.memory(window=6, sink=0), model=model, free=lambda: None)
    film._runs_ahead = True
    return film


def joined(blocks: list[Tensor]) -> Tensor:
    return torch.cat(blocks, dim=2)


def test_a_film_that_runs_ahead_is_the_same(tiny: Tiny) -> None:
    """Each block is returned after its clean pass, which is not run again, and no bit differs."""
    model = Proxy(tiny)
    film, calls, blocks = ahead(tiny, model), list[int](), list[Tensor]()
    for block in film:
        calls.append(model.calls)
        blocks.append(block.latents)
    assert calls == [3, 6, 9, 12, 15] and model.calls == 15
    assert torch.equal(joined(blocks), tiny.film(SHOTS, tiny.memory(window=6, sink=0)))


def test_a_block_that_is_not_finite_can_be_made_again(tiny: Tiny) -> None:
    """Its clean pass has run before it is checked, and writes to its own slot only."""

    class Spoilt(Proxy):
        def change_flow(self, flow: Tensor) -> Tensor:
            return flow * torch.nan if self.calls == 8 else flow

    film = ahead(tiny, Spoilt(tiny))
    blocks = [next(film).latents, next(film).latents]
    with pytest.raises(NotFiniteError):
        next(film)
    blocks += [block.latents for block in film]
    assert torch.equal(joined(blocks), tiny.film(SHOTS, tiny.memory(window=6, sink=0)))


def test_a_clean_pass_without_memory_costs_no_block(tiny: Tiny) -> None:
    """If it runs out of memory twice, the block is returned, and the pass runs when the next one is requested."""

    class Full(Proxy):
        def write_kv(self, x: Tensor, *rest: object) -> None:
            super().write_kv(x, *rest)  # type: ignore[arg-type]
            if self.calls in (3, 4):
                raise torch.OutOfMemoryError("CUDA out of memory")

    model = Full(tiny)
    film = ahead(tiny, model)
    first = next(film).latents
    assert model.calls == 4
    rest = [block.latents for block in film]
    assert torch.equal(joined([first, *rest]), tiny.film(SHOTS, tiny.memory(window=6, sink=0)))


def test_a_recache_does_not_run_ahead(tiny: Tiny) -> None:
    """It evicts what the block would need to be made again."""
    model = Proxy(tiny)
    film = tiny.generate("A |B", tiny.memory(shot_clean_recache=True), model=model)
    film._runs_ahead = True
    assert [model.calls for _ in film] == [3, 5]
