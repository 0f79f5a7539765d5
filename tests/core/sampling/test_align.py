"""Aligned seams: what is computed, which blocks are aligned, and that everything that holds for plain films holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.memory import BlockKVCache, MemoryConfig
from longlive.longlive_core.model import CausalWan, KVCache, Projected, Rope, TextKVCache, WanConfig
from longlive.longlive_core.model.attention import torch_attention
from longlive.longlive_core.sampling import Snapshot, Step, block_noise
from longlive.longlive_core.sampling.noise import film_noise
from longlive.longlive_core.sampling.seam import align, fading, overlap
from longlive.longlive_core.sampling.unipc import unipc
from longlive.longlive_core.types import Block, BlockSpec, LatentShape
from safetensors import safe_open
from torch import Tensor

from ..conftest import Tiny
from .test_generate import MEMORIES, Interrupt, Proxy

# Two continuing blocks, a cut, three continuing blocks of which one has another prompt, a cut.
SHOTS = "A A A |B B C B |D D"
CONTINUING = [1, 2, 4, 5, 6, 8]
# The noise level of the first step.
SIGMA = unipc(1).sigmas[0]
FEW_BITS = [{"kv_format": "fp8"}, {"kv_format": "nvfp4"}, {"kv_format": "nvfp4", "smoothing": "none"}]
OPTIONS = [{}, {"guidance": 3.0, "negative": "N"}, {"batch": 2}]


@pytest.fixture(scope="module")
def wide() -> Tiny:
    """A model whose heads are wide enough for few bits, with blocks of 6 frames: a correction ends within a block."""
    torch.manual_seed(1)
    config = WanConfig(dim=64, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=5, channels=4)
    return Tiny(CausalWan(config).requires_grad_(False), block_frames=6, size=(4, 4))


def wide_memory(**changes: Any) -> MemoryConfig:  # noqa: ANN401
    return MemoryConfig(**{"window": 24, "sink": 6, "kv_format": "float32", **changes})


def aligned(tiny: Tiny, shots: str = SHOTS, memory: MemoryConfig | None = None, **options: Any) -> Tensor:  # noqa: ANN401
    return tiny.film(shots, memory, seam="align", **options)


def block(film: Tensor, index: int, frames: int = 2) -> Tensor:
    return film[:, :, index * frames : (index + 1) * frames]


class Past(list[tuple[Tensor, Tensor]]):
    """A KV cache as one would write it on paper: all tokens of the film so far, and those of this call behind them."""

    def __init__(self, past: Past | None = None) -> None:
        super().__init__()
        self.past = past

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:
        self.store(layer, k, v, rope)
        keys, values = self[layer]
        return torch_attention(q.rotated(rope), keys, values)

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        keys = k.rotated(rope)
        if self.past is not None:
            keys, v = torch.cat((self.past[layer][0], keys), 1), torch.cat((self.past[layer][1], v), 1)
        self.append((keys, v))


class Words:
    """The K/V of one prompt."""

    def __init__(self, model: CausalWan, text: Tensor) -> None:
        self.layers = model.text_kv(text.unsqueeze(0))

    def attend(self, layer: int, q: Tensor) -> Tensor:
        return torch_attention(q, *self.layers[layer])


@pytest.mark.slow
def test_a_block_is_what_the_formula_says(wide: Tiny) -> None:
    """Nine frames of which the first is the last block's last one, with its noise; its error is added, fading over
    four frames. Computed here step by step, with a cache that is a list."""
    plan, shape = wide.plan("A A"), LatentShape(1, 4, 6, 4, 4)
    noise = [block_noise(0)(spec, shape) for spec in plan.blocks]
    words, schedule = Words(wide.model, wide.text("A")), unipc(2)

    def sampled(noise: Tensor, past: Past | None, start: int) -> Tensor:
        x, flows, positions = noise, list[Tensor](), torch.arange(start, start + noise.shape[2])
        for t in schedule.timesteps:
            times = torch.full((1, noise.shape[2]), float(t))
            flows.append(wide.model(x, times, words, Past(past), positions))
            x = schedule.advance(noise, flows)
        return x

    first = sampled(noise[0], None, 0)
    past = Past()
    wide.model(first, torch.zeros(1, 6), words, past, torch.arange(6))
    both = sampled(torch.cat((noise[0][:, :, 5:], noise[1]), dim=2), past, 5)
    error = first[:, :, 5] - both[:, :, 0]
    second = torch.stack([both[:, :, 1 + i] + w * error for i, w in enumerate([1, 0.75, 0.5, 0.25, 0, 0])], dim=2)
    film = aligned(wide, "A A", wide_memory())
    torch.testing.assert_close(film[:, :, :6], first, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(film[:, :, 6:], second, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(wide.film("A A", wide_memory())[:, :, 6:], second, rtol=1e-2, atol=1e-2)


def test_the_weights_are_those_of_the_measured_variant() -> None:
    """One, three quarters, a half, a quarter, then nothing; a shorter block ends before."""
    assert fading(8).tolist() == [1, 0.75, 0.5, 0.25, 0, 0, 0, 0]
    assert fading(8)[:4].tolist() == torch.linspace(1, 0, 5)[:4].tolist()
    assert fading(2).tolist() == [1, 0.75]
    x, last = torch.randn(2, 3, 9, 2, 2), torch.randn(2, 3, 1, 2, 2)
    assert torch.equal(align(x, last)[:, :, 4:], x[:, :, 5:])
    assert torch.equal(align(x, last)[:, :, :1], x[:, :, 1:2] + (last - x[:, :, :1]))
    assert torch.equal(align(x, x[:, :, :1]), x[:, :, 1:])


def test_only_blocks_that_continue_another_get_a_frame_in_front(tiny: Tiny) -> None:
    """The first block and cuts are sampled alone; a new prompt without a cut continues. Clean passes, previews and
    finished blocks have the block's own frames."""
    frames: list[tuple[int, float, float]] = []

    class Watched(Proxy):
        def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
            assert x.shape[2] == t.shape[1] == len(positions)
            frames.append((x.shape[2], float(positions[0]), float(t.min())))
            return super().__call__(x, t, text, kv, positions)

        def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
            assert x.shape[2] == t.shape[1] == len(positions) == 2
            super().write_kv(x, t, text, kv, positions)

    shown: list[Step] = []
    plan = tiny.plan(SHOTS)
    film = tiny.generate("", plan=plan, model=Watched(tiny), seam="align", on_step=shown.append)
    assert all(made.latents.shape[2] == 2 for made in film)
    assert all(step.x0.shape[2] == 2 for step in shown)
    cuts = [0, 0, 0, 1, 1, 1, 1, 2, 2]
    for index, (count, start, t) in enumerate(frames[::2]):
        front = int(index in CONTINUING)
        assert (count, start) == (2 + front, 2 * index - front + 8 * cuts[index]) and t > 0


def test_cuts_are_never_aligned(tiny: Tiny) -> None:
    """A film of cuts alone is that of plain seams to the bit; and overlap says so block by block."""
    assert torch.equal(aligned(tiny, "A |B |C |D |E"), tiny.film("A |B |C |D |E"))
    plan = tiny.plan(SHOTS)
    assert [spec.index for spec in plan.blocks if overlap("align", spec, 0)] == CONTINUING
    assert not any(overlap("plain", spec, 0) for spec in plan.blocks)


def test_plain_is_the_default_and_is_unchanged(tiny: Tiny) -> None:
    """Without the setting a film is plain; aligned, only its first continuing block and those after it differ."""
    plain, film = tiny.film(SHOTS), aligned(tiny)
    assert torch.equal(plain, tiny.film(SHOTS, seam="plain"))
    assert torch.equal(plain[:, :, :2], film[:, :, :2])
    assert all(not torch.equal(block(plain, i), block(film, i)) for i in range(1, 9))


def test_an_unknown_seam_is_refused(tiny: Tiny) -> None:
    """The message names the value and the choices."""
    with pytest.raises(ValueError, match="seam 'smooth' is not known; choose one of plain, align"):
        tiny.generate("A", seam="smooth")


@pytest.mark.parametrize("changes", [*MEMORIES, {"window": 24}], ids=str)
@pytest.mark.parametrize("options", OPTIONS[:2], ids=["", "guided"])
def test_the_memory_holds_the_aligned_blocks_and_nothing_else(
    tiny: Tiny, changes: dict[str, object], options: dict[str, Any]
) -> None:
    """Its slots are, to the bit, those that clean passes over the same blocks leave: the frame in front is nowhere."""
    memory = tiny.memory(**changes)
    film = tiny.generate(SHOTS, memory, seam="align", **options)
    made = {made.index: made.latents for made in film}
    replayed = tiny.generate(SHOTS, memory, known=lambda spec: made[spec.index], **options)
    assert all(torch.equal(again.latents, made[again.index]) for again in replayed)
    for pool, expected in zip(film.snapshot().pools, replayed.snapshot().pools, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(pool, expected, strict=True))


def test_relative_positions_make_the_film_of_absolute_ones(tiny: Tiny) -> None:
    """While nothing is evicted and no cut moves the time, attention sees the same distances either way."""
    wide_window = {"window": 12}
    one = aligned(tiny, "A A A A", tiny.memory(**wide_window))
    other = aligned(tiny, "A A A A", tiny.memory(relative_rope=True, **wide_window))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_relative_positions_follow_the_window(tiny: Tiny) -> None:
    """After evictions the frame in front has the position before the newest block: the film is another than one with
    the frame at its position in the film, and every memory makes it the same twice."""
    memory = tiny.memory(relative_rope=True, t_scale=0.5)
    assert torch.equal(aligned(tiny, SHOTS, memory), aligned(tiny, SHOTS, memory))
    assert not torch.equal(aligned(tiny, SHOTS, memory), aligned(tiny, SHOTS, tiny.memory(relative_rope=True)))


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=["", "guided", "batch"])
@pytest.mark.parametrize("changes", MEMORIES, ids=str)
def test_a_restored_film_goes_on_bit_for_bit(
    tiny: Tiny, tmp_path: Path, changes: dict[str, object], options: dict[str, Any]
) -> None:
    """From a snapshot before any block, through a file: the frame to align to is in it."""
    memory = tiny.memory(**changes)
    film, made = tiny.generate(SHOTS, memory, seam="align", **options), list[Tensor]()
    snapshots = [film.snapshot()]
    for finished in film:
        made.append(finished.latents)
        snapshots.append(film.snapshot())
    for at in (0, 1, 3, 4, 5, 8):
        snapshots[at].save(path := tmp_path / f"{at}.safetensors")
        again = tiny.generate(SHOTS, memory, seam="align", resume=Snapshot.load(path), **options)
        assert all(torch.equal(a.latents, b) for a, b in zip(again, made[at:], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("changes", FEW_BITS, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=["", "guided", "batch"])
def test_few_bit_memory_restores_and_replays(wide: Tiny, changes: dict[str, object], options: dict[str, Any]) -> None:
    """With K/V in 8 or 4 bits, a film goes on from a snapshot and from replayed blocks to the bit."""
    memory, shots = wide_memory(**changes), "A A |B B B B"
    film, made = wide.generate(shots, memory, seam="align", **options), list[Tensor]()
    snapshots = [film.snapshot()]
    for finished in film:
        made.append(finished.latents)
        snapshots.append(film.snapshot())
    assert not torch.equal(made[1], list(wide.generate("A A", memory, **options))[1].latents)
    for at in (1, 3, 4):
        again = wide.generate(shots, memory, seam="align", resume=snapshots[at], **options)
        assert all(torch.equal(a.latents, b) for a, b in zip(again, made[at:], strict=True))
        known = dict(enumerate(made[:at]))
        replay = wide.generate(shots, memory, seam="align", known=lambda spec, k=known: k.get(spec.index), **options)
        assert all(torch.equal(a.latents, b) for a, b in zip(replay, made, strict=True))


@pytest.mark.parametrize("changes", FEW_BITS, ids=str)
def test_few_bits_change_an_aligned_film_little(wide: Tiny, changes: dict[str, object]) -> None:
    """A film with rounded K/V is close to that without: the frame in front sees what the block sees."""
    exact, rounded = (aligned(wide, "A A A", wide_memory(**memory)) for memory in ({}, changes))
    assert float((exact - rounded).norm() / exact.norm()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("changes", MEMORIES, ids=str)
@pytest.mark.parametrize("options", OPTIONS[:2], ids=["", "guided"])
def test_an_interrupt_at_any_call_costs_nothing(
    tiny: Tiny, changes: dict[str, object], options: dict[str, Any]
) -> None:
    """Interrupted at every model call once, a film is the same to the bit."""
    memory = tiny.memory(**changes)

    class Nervous(Proxy):
        tried: set[object]

        def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
            flow = super().__call__(x, t, text, kv, positions)
            self.interrupt(t, kv, positions)
            return flow

        def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
            self.model.write_kv(torch.full_like(x, torch.nan), t, text, kv, positions)
            self.interrupt(t, kv, positions)
            self.model.write_kv(x, t, text, kv, positions)

        def interrupt(self, t: Tensor, kv: KVCache, positions: Tensor) -> None:
            assert isinstance(kv, BlockKVCache)
            key = (float(t.max()), float(positions[-1]), id(kv.pool))
            if key not in self.tried:
                self.tried.add(key)
                raise Interrupt

    model = Nervous(tiny)
    model.tried = set()
    film, made = tiny.generate(SHOTS, memory, model=model, seam="align", **options), list[Block]()
    interrupts = 0
    while True:
        try:
            finished = next(film, None)
        except Interrupt:
            interrupts += 1
            continue
        if finished is None:
            break
        made.append(finished)
    assert interrupts == 9 * 3 * (2 if options else 1)
    assert torch.equal(torch.cat([one.latents for one in made], dim=2), aligned(tiny, SHOTS, memory, **options))


@pytest.mark.parametrize("at", range(4, 9))
def test_a_film_continues_from_another(tiny: Tiny, at: int) -> None:
    """A generation that takes the K/V of another takes its last frame too; no clean pass is repeated."""
    plan, model = tiny.plan(SHOTS), Proxy(tiny)
    first = tiny.generate("", plan=replace(plan, blocks=plan.blocks[:at]), model=model, seam="align")
    made = [next(first).latents for _ in range(at)]
    second = tiny.generate(SHOTS, model=model, seam="align")
    assert second.continue_from(first)
    made += [block.latents for block in second]
    assert torch.equal(torch.cat(made, dim=2), aligned(tiny)) and model.calls == 9 * 3


def test_an_aligned_film_continues_a_plain_one(tiny: Tiny) -> None:
    """From a generation, and from a snapshot before a cut. A plain snapshot before a continuing block has no frame to
    align to, and is refused."""
    plain = tiny.generate("A A A A")
    next(plain), next(plain)
    snapshot = plain.snapshot()
    known = {i: block(tiny.film(SHOTS), i) for i in (0, 1)}
    replayed = aligned(tiny, known=lambda spec: known.get(spec.index))
    goes_on = tiny.generate(SHOTS, seam="align")
    assert goes_on.continue_from(plain)
    assert torch.equal(torch.cat([made.latents for made in goes_on], dim=2), replayed[:, :, 4:])
    with pytest.raises(ValueError, match="made with seam plain and has no frame that block 2 could be aligned to"):
        tiny.generate(SHOTS, seam="align", resume=snapshot)
    before_a_cut = tiny.generate("A A |B B", seam="align", resume=snapshot)
    again = aligned(tiny, "A A |B B", known=lambda spec: known.get(spec.index))
    assert torch.equal(torch.cat([made.latents for made in before_a_cut], dim=2), again[:, :, 4:])


def test_a_plain_snapshot_is_what_it_was(tiny: Tiny, tmp_path: Path) -> None:
    """Its file has the tensors of the pools and no other; an aligned one has one frame more."""
    for seam in ("plain", "align"):
        film = tiny.generate("A A", seam=seam)
        next(film)
        film.snapshot().save(path := tmp_path / seam)
        with safe_open(path, "pt") as file:
            assert set(file.keys()) - {f"0.{i}" for i in range(4)} == ({"last"} if seam == "align" else set())


@pytest.mark.parametrize("given", [{0}, {0, 1}, {0, 1, 2, 3}, {2}, {3, 4}, set(range(9))], ids=str)
def test_given_blocks_stay_and_are_aligned_to(tiny: Tiny, given: set[int]) -> None:
    """A given block is returned as it is, wherever it is, without a model call but its clean pass. The next block is
    aligned to its last frame, with the noise that the block would have had."""
    generator = torch.Generator().manual_seed(5)
    known = {index: torch.randn(1, 4, 2, 4, 6, generator=generator) for index in given}
    model = Proxy(tiny)
    film = aligned(tiny, model=model, known=lambda spec: known.get(spec.index))
    assert all(torch.equal(block(film, index), known[index]) for index in given)
    assert model.calls == 9 + 2 * (9 - len(given))
    if given == {0}:
        prefix = aligned(tiny, prefix=known[0])
        assert torch.equal(prefix, film)
        other = aligned(tiny, known=lambda spec: known[0] + 1 if spec.index == 0 else None)
        assert not torch.equal(other[:, :, 2:4], film[:, :, 2:4])


def test_a_block_that_begins_with_given_frames_is_not_aligned(tiny: Tiny) -> None:
    """The given frames join it to the block before, and stay as they are: the film is that of plain seams."""
    prefix = torch.randn(1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(5))
    film = aligned(tiny, "A A", prefix=prefix)
    assert torch.equal(film[:, :, :3], prefix)
    assert torch.equal(film, tiny.film("A A", prefix=prefix))


def test_the_frame_in_front_has_its_own_noise(tiny: Tiny) -> None:
    """The source is asked for the block before, with that block's seed, whatever source it is."""
    asked: list[int] = []

    def source(spec: BlockSpec, shape: LatentShape) -> Tensor:
        asked.append(spec.index)
        return block_noise(0)(spec, shape)

    plan = tiny.plan("A A |B B", {1: 7})
    film = aligned(tiny, plan=plan, noise=source)
    assert asked == [0, 1, 0, 2, 3, 2] and torch.equal(film, aligned(tiny, plan=plan))
    whole = torch.cat([block_noise(0)(spec, LatentShape(1, 4, 2, 4, 6)) for spec in plan.blocks], dim=2)
    assert torch.equal(aligned(tiny, plan=plan, noise=film_noise(whole)), film)


def test_a_batch_makes_its_films_independently(tiny: Tiny) -> None:
    """An aligned film is the same alone and in a batch."""
    torch.testing.assert_close(aligned(tiny, batch=3)[:1], aligned(tiny), rtol=1e-4, atol=1e-4)


def test_a_longer_film_begins_with_the_shorter_one(tiny: Tiny) -> None:
    """More blocks and shots change no aligned block before them."""
    assert torch.equal(aligned(tiny)[:, :, :10], aligned(tiny, "A A A |B B"))


def test_a_call_that_runs_out_of_memory_is_repeated(tiny: Tiny) -> None:
    """Each step and clean pass once: the block is sampled again from its noise, and the film is the same."""

    class Full(Proxy):
        bad = 0

        def __call__(self, x: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
            self.fail()
            return super().__call__(x, *rest)

        def write_kv(self, x: Tensor, *rest: Any) -> None:  # noqa: ANN401
            self.fail()
            super().write_kv(x, *rest)

        def fail(self) -> None:
            if self.calls == self.bad:
                self.calls += 1
                raise torch.OutOfMemoryError("CUDA out of memory")

    expected = aligned(tiny, "A A A")
    for bad in range(9):
        model = Full(tiny)
        model.bad = bad
        assert torch.equal(aligned(tiny, "A A A", model=model, free=lambda: None), expected)


@pytest.mark.slow
def test_a_compiled_model_makes_the_same_film(tiny: Tiny) -> None:
    """Traced once for blocks and once for blocks with a frame in front, a model makes the film of the plain one."""
    torch.compiler.reset()
    compiled: Callable[..., Tensor] = torch.compile(tiny.model, backend="eager")

    class Compiled(Proxy):
        def __call__(self, *inputs: Any) -> Tensor:  # noqa: ANN401
            return compiled(*inputs)

    model = Compiled(tiny)
    for changes in ({}, {"relative_rope": True}):
        memory = tiny.memory(**changes)
        torch.testing.assert_close(
            aligned(tiny, "A A |B B", memory, model=model), aligned(tiny, "A A |B B", memory), rtol=1e-4, atol=1e-4
        )


def test_the_seam_closes_where_the_model_repeats_itself(tiny: Tiny) -> None:
    """For a model that always errs by the same amount in a block, the error vanishes at the seam: the block continues
    the one before as if both had been one."""

    class Offset(Proxy):
        """Predicts zeros for the first block and an offset, one for each block, for the others."""

        def __call__(self, x: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
            offset = float(rest[3][-1]) // 2
            return (x - offset) / SIGMA

    films = [tiny.film("A A A", model=Offset(tiny), steps=1, seam=seam) for seam in ("plain", "align")]
    jumps = [float((film[:, :, 2] - film[:, :, 1]).abs().mean()) for film in films]
    assert jumps[1] < 1e-3 < 0.5 < jumps[0]
