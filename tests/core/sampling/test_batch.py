"""A batch of films of several seeds: each film is the one that its seed makes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from longlive.longlive_core.memory import KV_FORMATS, PoolShape, PoolSpec
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.linears import quantize_linears
from longlive.longlive_core.sampling import Generation, NoiseSource, Snapshot, batch_noise, block_noise
from longlive.longlive_core.types import LatentShape
from torch import Tensor

from ..conftest import Tiny

SEEDS = (7, 8, 2**64 - 1)
SHOTS = "A A |B B B C |D"
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    """Its heads are wide enough for quantised K/V."""
    torch.manual_seed(0)
    config = WanConfig(dim=64, ffn_dim=96, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4)
    model = CausalWan(config).requires_grad_(False)
    torch.nn.init.normal_(model.head.head.weight, std=0.1)
    return Tiny(model)


def noise_of(tiny: Tiny, seeds: Sequence[int], shots: str = SHOTS) -> NoiseSource:
    blocks = tiny.plan(shots, seeds={2: 5}).blocks
    return batch_noise([(block_noise(seed), blocks) for seed in seeds])


def generation(tiny: Tiny, seeds: Sequence[int], shots: str = SHOTS, **options: Any) -> Generation:  # noqa: ANN401
    changes = options.pop("memory", {})
    source = {"plan": tiny.plan(shots, seeds={2: 5}), "batch": len(seeds), "noise": noise_of(tiny, seeds, shots)}
    return tiny.generate(shots, tiny.memory(**changes), **source, **options)


def film(blocks: Any) -> Tensor:  # noqa: ANN401
    return torch.cat([block.latents for block in blocks], dim=2)


def difference(one: Tensor, other: Tensor) -> float:
    """Relative L2."""
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 2},
        {"steps": 4, "seam": "align"},
        {"guidance": 3.0, "negative": "N"},
        {"memory": {"relative_rope": True}},
        {"memory": {"shot_clean_recache": True}},
        *({"memory": {"kv_format": name}} for name in KV_FORMATS),
    ],
    ids=str,
)
def test_each_film_is_the_one_that_its_seed_makes_alone(tiny: Tiny, options: dict[str, Any]) -> None:
    """With cuts, sinks and a window that is full, in every format of the KV cache."""
    together = film(generation(tiny, SEEDS, **options))
    for row, seed in enumerate(SEEDS):
        alone = film(
            tiny.generate(
                SHOTS,
                tiny.memory(**options.get("memory", {})),
                **{
                    **{name: value for name, value in options.items() if name != "memory"},
                    "plan": tiny.plan(SHOTS, seeds={2: 5}),
                    "seed": seed,
                },
            )
        )
        assert difference(together[row : row + 1], alone) <= TOLERANCE
    assert difference(together[:1], together[1:2]) > 0.1


def test_the_first_frames_of_each_film_stay_as_given(tiny: Tiny) -> None:
    """With a start image for every film: the frame is returned, and what follows is that of a film alone."""
    start = torch.randn(3, 4, 1, *tiny.size)
    together = film(generation(tiny, SEEDS, "A |B", prefix=start))
    assert torch.equal(together[:, :, :1], start)
    for row, seed in enumerate(SEEDS):
        alone = film(tiny.generate("A |B", seed=seed, prefix=start[row : row + 1]))
        assert difference(together[row : row + 1], alone) <= TOLERANCE


@pytest.mark.parametrize("kv_format", ["fp8", "nvfp4", "q2"])
def test_scales_of_quantised_memory_are_of_one_film(kv_format: str) -> None:
    """A film a thousand times as large beside it does not change the bits of what a film's K/V are read as."""
    shape = PoolShape(layers=1, batch=2, slots=2, block_tokens=8, heads=2, head_dim=32)
    (pool,) = PoolSpec(kv_format, shape, torch.float32, "token").make(torch.device("cpu"))
    values = torch.randn(2, 8, 2, 32)
    read = list[Tensor]()
    for factor in (1.0, 1000.0):
        new = pool.new_block(0, 0)
        for part in new:
            part.copy_(torch.stack((values[0], factor * values[1])))
        pool.commit(0, 0, clean=True)
        pool.new_block(0, 1)
        read.append(torch.cat([part[:1].clone() for part in pool.read(0, 1, torch.float32)]))
    assert torch.equal(*read)


@pytest.mark.parametrize("kv_format", ["float32", "nvfp4", "q2"])
@pytest.mark.parametrize("seam", ["plain", "align"])
def test_snapshots_of_films_go_in_and_out_of_a_batch(tiny: Tiny, kv_format: str, seam: str) -> None:
    """Films that are begun alone go on in a batch, and films of a batch alone, as if nothing had changed."""
    options: dict[str, Any] = {"memory": {"kv_format": kv_format}, "seam": seam}
    whole = film(generation(tiny, SEEDS, **options))
    alone = [generation(tiny, [seed], **options) for seed in SEEDS]
    for one in alone:
        _ = [next(one) for _ in range(3)]
    together = generation(tiny, SEEDS, **options)
    together.restore_films(one.snapshot() for one in alone)
    assert together.position == 3
    block = next(together)
    assert difference(block.latents, whole[:, :, 6:8]) <= TOLERANCE
    last = generation(tiny, SEEDS[-1:], **options)
    last.restore(together.snapshot(2))
    assert difference(film(last), whole[2:, :, 8:]) <= TOLERANCE


def test_a_batch_refuses_states_that_do_not_fit(tiny: Tiny) -> None:
    """Too few states, states before different blocks, and the state of a batch in place of a film's."""
    one = generation(tiny, SEEDS[:1])
    states = list[Snapshot]()
    for _ in range(2):
        next(one)
        states.append(one.snapshot())
    two = generation(tiny, SEEDS[:2])
    with pytest.raises(ValueError, match="1 of 2 films"):
        two.restore_films(states[:1])
    with pytest.raises(ValueError, match="before 2 different states"):
        two.restore_films(states)
    with pytest.raises(ValueError, match="other settings; block"):
        two.restore(states[0])


def test_noise_is_of_as_many_films_as_there_are(tiny: Tiny) -> None:
    with pytest.raises(ValueError, match="the noise is of 3 films"):
        noise_of(tiny, SEEDS)(tiny.plan(SHOTS).blocks[0], LatentShape(2, 4, 2, 4, 6))


def test_a_model_that_rounds_films_together_is_refused() -> None:
    """W4A4 has one scale over all tokens of a call: a film would depend on those beside it."""
    config = WanConfig(dim=64, ffn_dim=96, num_heads=2, num_layers=1, freq_dim=32, text_dim=16, text_len=5, channels=4)
    model = CausalWan(config).requires_grad_(False)
    quantize_linears(model, "nvfp4", activations="nvfp4")
    tiny = Tiny(model)
    with pytest.raises(ValueError, match="one amax over all films"):
        tiny.generate("A", batch=2)
    assert len(list(tiny.generate("A"))) == 1
