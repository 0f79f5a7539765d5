"""Teacher forcing: a block attends to what it attends to at inference."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.memory import FilmKVCache, MemoryConfig
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.training.schedule import TimestepTable, add_noise, clean_from_flow
from longlive.longlive_core.training.segments import attention_mask, window_history
from longlive.longlive_core.training.teacher_forcing import plain_flow, teacher_forced_flow
from longlive.longlive_core.types import LatentShape
from torch import Tensor

from ..conftest import Tiny

FILM_BLOCKS, FRAMES = 5, 10
POSITIONS = torch.tensor([0, 1, 2, 3, 104.5, 105.5, 114.5, 115.5, 118.5, 119.5])
PROMPTS = torch.tensor([[0, 0, 1, 1, 1], [2, 2, 2, 0, 0]])


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    """Random inputs of two films with three noisy copies each."""
    torch.manual_seed(1)
    return {
        "clean": torch.randn(2, 4, FRAMES, 4, 6),
        "noisy": torch.randn(2, 3, 4, FRAMES, 4, 6),
        "t": torch.rand(2, 3, FILM_BLOCKS).mul(1000).repeat_interleave(2, dim=-1),
        "text": torch.randn(3, 4, 16),
    }


def forced(tiny: Tiny, batch: dict[str, Tensor], **options: object) -> Tensor:
    """The teacher-forced flow of the batch, with some arguments replaced."""
    given = {**batch, "prompts": PROMPTS, "positions": POSITIONS, "block_frames": 2, **options}
    return teacher_forced_flow(tiny.model, **given)  # pyright: ignore[reportArgumentType]


def cached(tiny: Tiny, batch: dict[str, Tensor], film: int, copy: int, memory: MemoryConfig, cuts: set[int]) -> Tensor:
    """The same flows computed as at inference: one noisy pass and one clean pass of each block, with a KV cache."""
    names = ["0", "1", "2"]
    cache = FilmKVCache(
        tiny.model,
        memory,
        LatentShape(1, 4, 2, 4, 6),
        FILM_BLOCKS,
        lambda name: batch["text"][int(name)],
        torch_attention,
    )
    flows: list[Tensor] = []
    plan = tiny.plan(" ".join(("|" if b in cuts else "") + names[int(PROMPTS[film, b])] for b in range(FILM_BLOCKS)))
    for block in plan.blocks:
        rows = slice(block.start, block.start + 2)
        cache.begin(block)
        (text, kv), *_ = cache.calls(block, clean=False)
        noisy, t = batch["noisy"][film, copy][None, :, rows], batch["t"][film, copy, rows][None]
        flows.append(tiny.model(noisy, t, text, kv, POSITIONS[rows]))
        (text, kv), *_ = cache.calls(block, clean=True)
        tiny.model.write_kv(batch["clean"][film][None, :, rows], torch.zeros(1, 2), text, kv, POSITIONS[rows])
        cache.end(block)
    return torch.cat(flows, dim=2)[0]


def test_flow_equals_cached_inference(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """With a window that holds the whole film, flows equal those of inference with a KV cache."""
    flow = forced(tiny, batch)
    assert flow.shape == batch["noisy"].shape
    for film, copy in ((0, 0), (1, 2)):
        expected = cached(tiny, batch, film, copy, tiny.memory(window=10), set())
        torch.testing.assert_close(flow[film, copy], expected, rtol=1e-4, atol=1e-5)


def test_a_history_equals_inference_with_a_window(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """With the history of a window of 3 blocks, flows equal those of inference with that window.

    Clean keys depend on what their block attended to. So the two agree if each block's history contains the histories
    of the blocks in it.
    """
    history = [[], [0], [0, 1], [0, 2], [0, 2]]  # window of 3 blocks, cut at block 2
    flow = forced(tiny, batch, history=history)
    expected = cached(tiny, batch, 1, 1, tiny.memory(window=6), {2})
    torch.testing.assert_close(flow[1, 1], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(flow, forced(tiny, batch), atol=1e-3)


def test_copies_do_not_see_each_other(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """The flow of one noisy copy does not depend on the other copies."""
    alone = forced(tiny, {**batch, "noisy": batch["noisy"][:, 1:2], "t": batch["t"][:, 1:2]})
    torch.testing.assert_close(forced(tiny, batch)[:, 1:2], alone, rtol=1e-4, atol=1e-5)


def test_a_block_sees_nothing_later_and_no_noisy_neighbour(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """A block attends to earlier clean blocks and to itself only."""
    base = forced(tiny, batch)
    clean, noisy = batch["clean"].clone(), batch["noisy"].clone()
    clean[:, :, 4:] += 1  # blocks 2 …
    noisy[:, :, :, 2:4] += 1  # block 1
    changed = forced(tiny, {**batch, "clean": clean, "noisy": noisy})
    same = [torch.allclose(base[:, :, :, 2 * b : 2 * b + 2], changed[:, :, :, 2 * b : 2 * b + 2]) for b in range(5)]
    assert same == [True, False, True, False, False]


def test_each_block_reads_its_own_prompt(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """Another prompt of the last block changes the flow of that block only."""
    prompts = PROMPTS.clone()
    prompts[:, 4] = 2
    base, changed = forced(tiny, batch), forced(tiny, batch, prompts=prompts)
    assert torch.allclose(base[:, :, :, :8], changed[:, :, :, :8])
    assert not torch.allclose(base[:, :, :, 8:], changed[:, :, :, 8:])


def test_positions_may_differ_between_films(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """Positions of one film do not influence another film of the batch."""
    both = torch.stack((POSITIONS, torch.arange(FRAMES).float()))
    flow = forced(tiny, batch, positions=both)
    torch.testing.assert_close(flow[:1], forced(tiny, batch)[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(flow[1], forced(tiny, batch)[1], atol=1e-3)


def test_one_block_needs_no_history(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """For a single block, the teacher-forced and the plain flow are equal."""
    first = {**batch, "clean": batch["clean"][:, :, :2], "noisy": batch["noisy"][:, :, :, :2], "t": batch["t"][..., :2]}
    given = {"prompts": PROMPTS[:, :1], "positions": POSITIONS[:2]}
    flow = forced(tiny, first, **given)
    plain = plain_flow(
        tiny.model, first["noisy"][:, 0], first["t"][:, 0], batch["text"], PROMPTS[:, :1], POSITIONS[:2], 2
    )
    torch.testing.assert_close(flow[:, 0], plain, rtol=1e-4, atol=1e-5)


def test_gradients_match_finite_differences(tiny: Tiny, batch: dict[str, Tensor]) -> None:
    """The gradient of a key projection equals its finite difference."""
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
        ({"history": [[], [0]]}, "history has 2 entries, but must have one for each of the 5 blocks"),
        ({"history": [[], [1], [], [], []]}, "history of block 1 .* earlier blocks only"),
        ({"prompts": PROMPTS[:, :4]}, "prompts of shape .* must have the shape .2, 5."),
    ],
)
def test_wrong_shapes_and_histories_are_refused(
    tiny: Tiny, batch: dict[str, Tensor], change: dict[str, object], message: str
) -> None:
    """Part of a block, a history of another length or with a later block, and missing prompts raise an error."""
    with pytest.raises(ValueError, match=message):
        forced(tiny, batch, **change)


def test_the_timestep_table() -> None:
    """The table has its documented range, weights and nearest indices."""
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
    """The flow noise − clean leads from noisy back to clean latents."""
    clean, noise, sigma = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([[0.3], [0.9]])
    noisy = add_noise(clean, noise, sigma)
    torch.testing.assert_close(clean_from_flow(noisy, noise - clean, sigma), clean)


# Blocks A B C D, clean ones in upper case and noisy ones in lower case, in the order in which the ranks hold them.
MASKS = {
    1: "1....... 11...... 111..... 1111.... ....1... 1....1.. 11....1. 111....1",
    2: "1....... 11...... ..1..... 1..1.... 11..1... 11..11.. 11....1. 11..1..1",
    4: "1....... .1...... 1.1..... 1..1.... 1.1.1... 1.1..1.. 1.1.1.1. 1.1.1..1",
}


@pytest.mark.parametrize("ranks", MASKS)
def test_the_mask_in_the_order_of_ranks(ranks: int) -> None:
    """A clean block attends to clean blocks up to itself, a noisy one to itself and to earlier clean ones."""
    mask = attention_mask(4, 1, 1, ranks)
    assert [[".1"[int(seen)] for seen in row] for row in mask] == [list(row) for row in MASKS[ranks].split()]
    tokens = attention_mask(8, 2, 3, ranks)
    assert torch.equal(tokens, mask.repeat_interleave(6, 0).repeat_interleave(6, 1))


def test_the_mask_needs_whole_blocks_on_each_rank() -> None:
    """A rank that would hold part of a block raises an error."""
    with pytest.raises(ValueError, match="8 latent frames do not split into whole blocks of 2 on 3 ranks"):
        attention_mask(8, 2, 1, 3)


def test_the_history_of_a_window() -> None:
    """Sinks, the shot sink and the newest blocks are attended, as by the window of the KV cache."""
    assert window_history([False, False, True, False, False, False], 3) == ((), (0,), (0, 1), (0, 2), (0, 2), (0, 2))
    assert window_history([False] * 4, 2, sinks=0, shot_sink=False) == ((), (0,), (1,), (2,))
