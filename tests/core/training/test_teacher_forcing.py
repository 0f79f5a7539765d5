"""Training sees what inference sees, block for block."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.memory import FilmKVCache, MemoryConfig
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.training.schedule import TimestepTable, add_noise, clean_from_flow
from longlive.longlive_core.training.teacher_forcing import plain_flow, teacher_forced_flow
from longlive.longlive_core.types import LatentShape
from torch import Tensor

from ..conftest import Tiny

BLOCKS, FRAMES = 5, 10
POSITIONS = torch.tensor([0, 1, 2, 3, 104.5, 105.5, 114.5, 115.5, 118.5, 119.5])
PROMPTS = torch.tensor([[0, 0, 1, 1, 1], [2, 2, 2, 0, 0]])


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "clean": torch.randn(2, 4, FRAMES, 4, 6),
        "noisy": torch.randn(2, 3, 4, FRAMES, 4, 6),
        "t": torch.rand(2, 3, BLOCKS).mul(1000).repeat_interleave(2, dim=-1),
        "text": torch.randn(3, 4, 16),
    }


def forced(tiny: Tiny, batch: dict[str, Tensor], **options: object) -> Tensor:
    given = {**batch, "prompts": PROMPTS, "positions": POSITIONS, "block_frames": 2, **options}
    return teacher_forced_flow(tiny.model, **given)  # pyright: ignore[reportArgumentType]


def cached(tiny: Tiny, batch: dict[str, Tensor], film: int, copy: int, memory: MemoryConfig, cuts: set[int]) -> Tensor:
    """The same flows from the memory of inference: clean passes before, one noisy pass of each block."""
    names = ["0", "1", "2"]
    kept = FilmKVCache(
        tiny.model,
        memory,
        LatentShape(1, 4, 2, 4, 6),
        BLOCKS,
        lambda name: batch["text"][int(name)],
        torch_attention,
    )
    flows: list[Tensor] = []
    plan = tiny.plan(" ".join(("|" if b in cuts else "") + names[int(PROMPTS[film, b])] for b in range(BLOCKS)))
    for block in plan.blocks:
        rows = slice(block.start, block.start + 2)
        kept.begin(block)
        (words, kv), *_ = kept.calls(block, clean=False)
        noisy, t = batch["noisy"][film, copy][None, :, rows], batch["t"][film, copy, rows][None]
        flows.append(tiny.model(noisy, t, words, kv, POSITIONS[rows]))
        (words, kv), *_ = kept.calls(block, clean=True)
        tiny.model.write_kv(batch["clean"][film][None, :, rows], torch.zeros(1, 2), words, kv, POSITIONS[rows])
        kept.end(block)
    return torch.cat(flows, dim=2)[0]


def test_flow_equals_cached_inference(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    flow = forced(tiny, batch)
    assert flow.shape == batch["noisy"].shape
    for film, copy in ((0, 0), (1, 2)):
        expected = cached(tiny, batch, film, copy, tiny.memory(window=10), set())
        torch.testing.assert_close(flow[film, copy], expected, rtol=1e-4, atol=1e-5)


def test_a_history_equals_inference_that_forgot(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """Clean keys depend on what was seen when they were made, so the two agree where every history is inherited."""
    history = [[], [0], [0, 1], [0, 2], [0, 2]]  # window of 3 blocks, cut at block 2
    flow = forced(tiny, batch, history=history)
    expected = cached(tiny, batch, 1, 1, tiny.memory(window=6), {2})
    torch.testing.assert_close(flow[1, 1], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(flow, forced(tiny, batch), atol=1e-3)


def test_copies_do_not_see_each_other(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    alone = forced(tiny, {**batch, "noisy": batch["noisy"][:, 1:2], "t": batch["t"][:, 1:2]})
    torch.testing.assert_close(forced(tiny, batch)[:, 1:2], alone, rtol=1e-4, atol=1e-5)


def test_a_block_sees_nothing_later_and_no_noisy_neighbour(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    base = forced(tiny, batch)
    clean, noisy = batch["clean"].clone(), batch["noisy"].clone()
    clean[:, :, 4:] += 1  # blocks 2 …
    noisy[:, :, :, 2:4] += 1  # block 1
    changed = forced(tiny, {**batch, "clean": clean, "noisy": noisy})
    same = [torch.allclose(base[:, :, :, 2 * b : 2 * b + 2], changed[:, :, :, 2 * b : 2 * b + 2]) for b in range(5)]
    assert same == [True, False, True, False, False]


def test_each_block_reads_its_own_prompt(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """Only block 4's prompt changes: earlier flows stay. (A changed prompt earlier reaches later blocks by memory.)"""
    prompts = PROMPTS.clone()
    prompts[:, 4] = 2
    base, changed = forced(tiny, batch), forced(tiny, batch, prompts=prompts)
    assert torch.allclose(base[:, :, :, :8], changed[:, :, :, :8])
    assert not torch.allclose(base[:, :, :, 8:], changed[:, :, :, 8:])


def test_positions_may_differ_between_films(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    both = torch.stack((POSITIONS, torch.arange(FRAMES).float()))
    flow = forced(tiny, batch, positions=both)
    torch.testing.assert_close(flow[:1], forced(tiny, batch)[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(flow[1], forced(tiny, batch)[1], atol=1e-3)


def test_one_block_needs_no_history(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    first = {**batch, "clean": batch["clean"][:, :, :2], "noisy": batch["noisy"][:, :, :, :2], "t": batch["t"][..., :2]}
    given = {"prompts": PROMPTS[:, :1], "positions": POSITIONS[:2]}
    flow = forced(tiny, first, **given)
    plain = plain_flow(
        tiny.model, first["noisy"][:, 0], first["t"][:, 0], batch["text"], PROMPTS[:, :1], POSITIONS[:2], 2
    )
    torch.testing.assert_close(flow[:, 0], plain, rtol=1e-4, atol=1e-5)


def test_gradients_match_finite_differences(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    weight = tiny.model.blocks[0].self_attn.k.weight
    direction = torch.randn_like(weight)

    def loss() -> Tensor:
        return forced(tiny, batch).square().mean()

    weight.requires_grad_(True)
    loss().backward()
    assert weight.grad is not None
    slope = float((weight.grad * direction).sum())
    weight.requires_grad_(False)
    weight.grad = None
    step = 1e-2
    with torch.no_grad():
        weight += step * direction
        high = float(loss())
        weight -= 2 * step * direction
        low = float(loss())
        weight += step * direction
    assert slope == pytest.approx((high - low) / (2 * step), rel=0.05, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_frames": 3}, "10 latent frames are not whole blocks of 3"),
        ({"history": [[], [0]]}, "history names 2 blocks, the film has 5"),
        ({"history": [[], [1], [], [], []]}, "history of block 1 .* earlier blocks only"),
        ({"prompts": PROMPTS[:, :4]}, "prompts .* must name one text row"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    tiny: Tiny, batch: dict[str, Tensor], change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        forced(tiny, batch, **change)


def test_the_timestep_table() -> None:
    table = TimestepTable.shifted()
    assert table.timesteps[0] == 1000 and table.sigmas[0] == 1
    assert float(table.weights.mean()) == pytest.approx(1) and float(table.weights.min()) == 0
    assert float(table.timesteps[table.weights.argmax()]) == pytest.approx(500, abs=2)
    every = torch.arange(1000)
    assert torch.equal(table.index(table.timesteps), every)
    assert torch.equal(table.index(table.timesteps + 1e-3), every)
    nearest = (table.timesteps[:, None] - torch.linspace(-5, 1005, 400)).abs().argmin(0)
    assert torch.equal(table.index(torch.linspace(-5, 1005, 400)), nearest)


def test_noise_and_flow_are_inverse() -> None:
    clean, noise, sigma = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([[0.3], [0.9]])
    noisy = add_noise(clean, noise, sigma)
    torch.testing.assert_close(clean_from_flow(noisy, noise - clean, sigma), clean)
