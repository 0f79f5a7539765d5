"""Steady blocks as CUDA graphs: a recorder stands in for CUDA, and nothing of the block it recorded may stay."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any
from weakref import ref

import pytest
import torch
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.linears import BypassLinear, quantize_linears
from longlive.longlive_core.render.load_film import load_film
from longlive.longlive_core.render.settings import RenderSettings
from longlive.longlive_core.sampling.graphed_model import obstacle
from torch import Tensor

from ..conftest import Tiny
from ..op_recorder import Recorder

SHOTS = "A A A |B B B |C C C C D"
STEPS = 2
WIDE = WanConfig(dim=64, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4)


@pytest.fixture(scope="module")
def wide() -> Tiny:
    """A model whose heads quantised caches can hold."""
    torch.manual_seed(1)
    return Tiny(CausalWan(WIDE).requires_grad_(False))


def films(tiny: Tiny, memory: dict[str, object], **options: object) -> tuple[Tensor, Tensor, Recorder]:
    """A film as it is, one with graphs, and what recorded these."""
    recorder, settings = Recorder(), tiny.memory(**memory)
    plain = tiny.film(SHOTS, settings, **options)
    return plain, tiny.film(SHOTS, settings, capture=recorder, **options), recorder


@pytest.mark.parametrize("seam", ["plain", "align"])
@pytest.mark.parametrize("memory", [{}, {"kv_format": "bf16"}, {"sink": 0}, {"shot_sink": False}], ids=str)
def test_graphs_give_the_film_to_the_bit(tiny: Tiny, memory: dict[str, object], seam: str) -> None:
    """Whatever slot a block takes and whatever is pinned; each shape has one graph, and clean passes have one."""
    plain, graphed, recorder = films(tiny, memory, seam=seam)
    assert torch.equal(plain, graphed)
    assert recorder.captured == (3 if seam == "align" else 2)
    blocks = len(SHOTS.split()) - 3  # the first three find the window of four not full
    assert recorder.replayed == blocks * (STEPS + 1)


@pytest.mark.parametrize("kv_format", ["fp8", "nvfp4", "q2"])
@pytest.mark.parametrize("smoothing", ["none", "token", "reference"])
def test_graphs_store_quantised_blocks_in_their_slots(wide: Tiny, kv_format: str, smoothing: str) -> None:
    """The store gets a block in its clean pass only, and each step reads the block as it is."""
    plain, graphed, recorder = films(wide, {"kv_format": kv_format, "smoothing": smoothing})
    assert torch.equal(plain, graphed) and recorder.captured == 2


@pytest.mark.parametrize("kv_format", ["float32", "fp8"])
def test_each_branch_of_guidance_has_graphs_of_its_own(wide: Tiny, kv_format: str) -> None:
    """The negative prompt has other K/V, whose slots lie elsewhere."""
    plain, graphed, recorder = films(wide, {"kv_format": kv_format}, guidance=3.0, negative="N")
    assert torch.equal(plain, graphed) and recorder.captured == 4


def test_films_at_once_have_graphs(tiny: Tiny) -> None:
    """A batch is another shape, and nothing else."""
    plain, graphed, recorder = films(tiny, {}, batch=2)
    assert torch.equal(plain, graphed) and recorder.captured == 2


def test_an_evicting_cut_is_run_as_it_is(tiny: Tiny) -> None:
    """A recache empties slots: graphs go on once the window is full again."""
    plain, graphed, recorder = films(tiny, {"shot_clean_recache": True})
    cuts, others = 2, 4  # blocks 3 and 6, whose clean passes find two blocks in the window; blocks 5, 8, 9 and 10
    assert torch.equal(plain, graphed) and recorder.replayed == cuts * STEPS + others * (STEPS + 1)


def test_a_restored_film_goes_on_with_its_graphs(tiny: Tiny) -> None:
    """A snapshot is copied into the slots that the graphs read."""
    recorder = Recorder()
    film, plain = tiny.generate(SHOTS, capture=recorder), tiny.film(SHOTS)
    for _ in range(6):
        next(film)
    state = film.snapshot()
    rest = [block.latents for block in film]
    film.restore(state)
    again = [block.latents for block in film]
    assert torch.equal(torch.cat(rest, dim=2), plain[:, :, 12:]) and torch.equal(
        torch.cat(again, dim=2), plain[:, :, 12:]
    )
    assert recorder.captured == 2


def test_a_film_that_continues_another_takes_its_graphs(tiny: Tiny) -> None:
    """They are of the K/V that it takes; its prompts are others."""
    recorder, longer = Recorder(), SHOTS + " |E E E"
    first, second = (tiny.generate(shots, capture=recorder) for shots in (SHOTS, longer))
    head = [block.latents for block in first]
    assert second.continue_from(first)
    rest = [block.latents for block in second]
    assert torch.equal(torch.cat([*head, *rest], dim=2), tiny.film(longer)) and recorder.captured == 2


@pytest.mark.parametrize("message", ["operation not permitted when stream is capturing", "CUDA out of memory"])
def test_what_cannot_be_recorded_is_run_as_it_is(tiny: Tiny, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """The film is the same, the log has one line, and nothing is recorded again."""
    tries: list[int] = []

    def refuse(_: Callable[[], None]) -> Callable[[], None]:
        tries.append(1)
        raise RuntimeError(message)

    with caplog.at_level("INFO"):
        film = tiny.film(SHOTS, capture=refuse)
    assert torch.equal(film, tiny.film(SHOTS)) and len(tries) == 1
    assert [f"off for the rest of this film: {message}" in line for line in caplog.messages].count(True) == 1


def test_memory_that_runs_out_ends_the_graphs(tiny: Tiny) -> None:
    """Also in a replay: they hold memory that the second attempt may need."""
    recorder, graphs, held = Recorder(), list[ref[Any]](), list[object]()

    def record(work: Callable[[], None]) -> Callable[[], None]:
        replay = recorder(work)
        graphs.append(ref(replay))

        def scarce() -> None:
            if recorder.replayed == 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            replay()

        return scarce

    def free() -> None:
        gc.collect()
        held.extend(graph() for graph in graphs)

    assert torch.equal(tiny.film(SHOTS, capture=record, free=free), tiny.film(SHOTS)) and recorder.replayed == 4
    assert held == [None, None]


def test_models_without_graphs_say_why(tiny: Tiny, wide: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """A LoRA beside a layer, weights elsewhere, a host's model and relative RoPE; quantised weights are fine."""
    beside, away, quantised = (deepcopy(wide.model) for _ in range(3))
    layer = beside.blocks[0].self_attn.q  # type: ignore[union-attr]
    beside.blocks[0].self_attn.q = BypassLinear(layer, None, torch.zeros(64, 64), 1.0)  # type: ignore[union-attr]
    away.blocks.to("meta")
    quantize_linears(quantised, "nvfp4")
    memory, found = tiny.memory(), [obstacle(model, tiny.memory()) or "" for model in (beside, away, quantised)]
    assert ["LoRA" in found[0], "not all of its weights" in found[1], found[2]] == [True, True, ""]
    assert "another program" in str(obstacle(lambda: None, memory))  # type: ignore[arg-type]
    recorder = Recorder()
    with caplog.at_level("INFO"):
        tiny.film(SHOTS, tiny.memory(relative_rope=True), capture=recorder)
    assert recorder.captured == 0 and "no CUDA graphs: relative RoPE" in caplog.text


def test_the_option_says_that_a_cpu_has_none(mini: Mini, settings: RenderSettings) -> None:
    """`--cuda-graphs` reaches the sampler, which then has none, and a note says so; takes record nothing."""
    wanted = replace(settings, cuda_graphs=True)
    film = load_film(wanted, mini)
    assert film.sampler.cuda_graphs and film.notes[-1] == "no CUDA graphs: cpu has none"
    assert film.recorded == load_film(settings, mini).recorded


def test_the_recorder_keeps_numbers_and_reads_memory() -> None:
    """What it stands in for: a tensor that was written since is read anew, a number of Python is as it was."""
    x, number, out = torch.zeros(2), [1.0], torch.zeros(2)

    def add() -> None:
        out.copy_(x[1:] + number[0])

    replay = Recorder()(add)
    x += 5
    number[0] = 100.0
    replay()
    assert out.tolist() == [6.0, 6.0]
    with pytest.raises(RuntimeError, match="capturing"):
        Recorder()(lambda: x.fill_(float(x[0])) and None)
