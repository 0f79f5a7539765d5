"""CUDA graphs hold what the planner counts: their intermediates, inputs and results are measured without a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from longlive.longlive_core.memory import MemoryConfig
from longlive.longlive_core.model import WAN22_TI2V_5B, CausalWan, WanConfig
from longlive.longlive_core.sampling.generate import generate
from longlive.longlive_core.sampling.seam import SEAMS, Seam
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.types import BlockSpec, LatentShape
from longlive.longlive_core.units import GIB
from longlive.longlive_core.vae import DecodeStream
from longlive.longlive_core.vae.graphed_decoder import GraphedDecoder
from longlive.longlive_core.vram.budget import VAES, Budget
from longlive.longlive_core.vram.films_at_once import FilmSize
from longlive.longlive_core.vram.graph_budget import decoder_graph_bytes
from longlive.longlive_core.vram.planner import plan_vram
from torch import Tensor

from .card_decoder import CELLS, decoder, latents
from .live_bytes import LiveBytes

TINY = WanConfig(dim=256, ffn_dim=1024, num_heads=2, num_layers=3, freq_dim=32, text_dim=16, text_len=8)
LARGE = (704, 1280)


class Pool:
    """A `Capture` whose `peak` is what the pool of the graphs must hold: that of the largest work."""

    def __init__(self) -> None:
        self.peak = self.captured = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        with LiveBytes() as live:
            work()
        self.peak, self.captured = max(self.peak, live.peak), self.captured + 1
        return lambda: None  # what is recorded has run, and a second run would allocate once more


def part(budget: Budget, name: str) -> int:
    return sum(p.bytes for p in budget.parts if p.name == name)


def held(capture: Pool | None, **options: Any) -> int:  # noqa: ANN401
    """Bytes that a film of six blocks, with a cut before the last one, holds at its end, with its K/V and graphs."""
    torch.manual_seed(0)
    model = CausalWan(TINY, dtype=torch.bfloat16).requires_grad_(False)
    plan = BlockPlan(tuple(BlockSpec(i, i // 5, "a", i == 5, None, 8 * i, 8) for i in range(6)), 24.0, 8)
    text = torch.zeros(4, TINY.text_dim)
    with LiveBytes() as live:
        film = generate(model, plan, lambda _: text, MemoryConfig(), size=(16, 24), steps=2, capture=capture, **options)
        for _ in film:
            pass
        return live.now


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_graphs_of_passes_are_planned(guidance: float, seam: Seam) -> None:
    """What they hold is the plan's part, or up to a fifth less."""
    options = {"guidance": guidance, "negative": "b", "seam": seam}
    pool = Pool()
    measured = held(pool, **options) - held(None, **options) + pool.peak
    branches, aligned = (1 if guidance == 1.0 else 2), seam == "align"
    assert pool.captured == branches * (3 if aligned else 2)
    budget = Budget(GIB, (256, 384), guidance=branches == 2, model=TINY, align=aligned, graphs=True)
    planned = part(budget, "CUDA graphs, passes")
    assert 0.8 * planned <= measured <= planned
    assert part(replace(budget, graphs=False), "CUDA graphs, passes") == 0


@pytest.mark.parametrize(("name", "width"), [("full", 256), ("light", 64)])
def test_graphs_of_a_decoder_are_planned(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak is that of a film that begins after another: the state of the graph and its own, and the pool."""
    vae, pool, film = decoder(width, monkeypatch), Pool(), [latents() for _ in range(4)]
    with LiveBytes() as live:
        stream = DecodeStream(GraphedDecoder(vae, pool))
        decode(stream, film)
        live.peak = live.now
        decode(stream, film)
    assert pool.captured == 1
    own, planned = VAES[name], decoder_graph_bytes(CELLS, VAES[name].cache, VAES[name].first)
    without = CELLS * (own.cache + own.transient)
    assert 0.98 * (without + planned) <= live.peak + pool.peak <= 1.005 * (without + planned)


def decode(stream: DecodeStream, film: list[Tensor]) -> None:
    """Decodes a film from its beginning."""
    stream.reset()
    for frame in film:
        stream.feed(frame)
        stream.flush()


def test_the_plan_says_what_graphs_cost() -> None:
    """They are parts of the table and of the total, and to go without them is the first advice."""
    plain, graphed = (plan_vram(80 * GIB, LARGE, "bf16", "bf16", graphs=graphs) for graphs in (False, True))
    assert "CUDA graphs, passes" in graphed.text() and "CUDA graphs" not in plain.text()
    more = part(graphed.budget, "CUDA graphs, passes") + part(graphed.budget, "CUDA graphs, decoder")
    assert graphed.budget.total == plain.budget.total + more > plain.budget.total
    scarce = plan_vram((plain.budget.total + graphed.budget.total) // 2, LARGE, "bf16", "bf16", graphs=True)
    assert (scarce.advice[0].change, scarce.advice[0].saves, scarce.advice[0].fits) == ("no CUDA graphs", more, True)


def test_what_has_no_graphs_takes_nothing() -> None:
    """Passes whose layers come from host memory, and the tiny VAE."""
    budget = Budget(80 * GIB, LARGE, graphs=True)
    assert part(replace(budget, streamed=1), "CUDA graphs, passes") == 0 < part(budget, "CUDA graphs, passes")
    assert part(replace(budget, vae="tiny"), "CUDA graphs, decoder") == 0 < part(budget, "CUDA graphs, decoder")


def test_films_at_once_have_their_graphs() -> None:
    """Each film of a batch adds to the tensors of the graphs; the prompt is that of all."""
    size = FilmSize(WAN22_TI2V_5B, MemoryConfig(), LatentShape(1, 48, 8, 44, 80), graphs=True)
    for graphed in (size, replace(size, branches=2, align=True)):
        plain = replace(graphed, graphs=False)
        assert graphed.bytes(3) == 3 * graphed.bytes(1) > 3 * plain.bytes(1)
