"""The sampling loop: what a film depends on, interrupts, continuation, and refused settings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.model import KeyValue, KVCache, TextKVCache
from longlive.longlive_core.oom import OutOfMemoryError
from longlive.longlive_core.sampling.generate import NotFiniteError, Step
from longlive.longlive_core.sampling.noise import block_noise
from longlive.longlive_core.sampling.snapshot import Snapshot
from longlive.longlive_core.script import BlockPlan
from longlive.longlive_core.types import Block, BlockSpec
from safetensors.torch import save_file
from torch import Tensor

from ..conftest import Tiny

SHOTS = "A A A |B B B B |C C"
MEMORIES = [
    {},
    {"shot_sink": False},
    {"sink": 0},
    {"shot_clean_recache": True},
    {"relative_rope": True},
    {"t_scale": 0.5},
    {"kv_format": "bf16"},
]


class Proxy:
    """Wraps the model: counts calls, and subclasses change its output."""

    def __init__(self, tiny: Tiny) -> None:
        self.model, self.calls = tiny.model, 0
        self.config, self.dtype, self.device = tiny.model.config, tiny.model.dtype, tiny.model.device
        self.text_kv = tiny.model.text_kv

    def change_flow(self, flow: Tensor) -> Tensor:
        return flow

    def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
        self.calls += 1
        return self.change_flow(self.model(x, t, text, kv, positions))

    def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
        self.calls += 1
        self.model.write_kv(x, t, text, kv, positions)


def test_blocks_come_in_order_with_their_specs(tiny: Tiny) -> None:
    """Blocks come in the order of the plan, each with its spec and its latents in float32."""
    plan = tiny.plan(SHOTS)
    blocks = list(tiny.generate("", plan=plan))
    assert [block.spec for block in blocks] == list(plan.blocks)
    assert all(block.latents.shape == (1, 4, 2, 4, 6) and block.latents.dtype == torch.float32 for block in blocks)


def test_the_same_seed_makes_the_same_film_and_another_does_not(tiny: Tiny) -> None:
    """The same seed makes the same film to the bit, and another seed makes another film."""
    assert torch.equal(tiny.film("A A |B", seed=3), tiny.film("A A |B", seed=3))
    assert not torch.equal(tiny.film("A A |B", seed=3), tiny.film("A A |B", seed=4))


def test_a_longer_film_begins_with_the_shorter_one(tiny: Tiny) -> None:
    """A longer film begins with the shorter one, to the bit."""
    assert torch.equal(tiny.film(SHOTS)[:, :, :8], tiny.film("A A A |B"))


def test_a_shots_seed_changes_nothing_before_it(tiny: Tiny) -> None:
    """The seed of a shot changes its first block, and no block before it."""
    plain, seeded = tiny.film("A A |B B"), tiny.film("", plan=tiny.plan("A A |B B", {1: 5}))
    assert torch.equal(plain[:, :, :4], seeded[:, :, :4])
    assert not torch.equal(plain[:, :, 4:6], seeded[:, :, 4:6])


def test_a_batch_makes_its_films_independently(tiny: Tiny) -> None:
    """The first film of a batch is the film that is sampled alone, within rounding."""
    torch.testing.assert_close(tiny.film(SHOTS, batch=3)[:1], tiny.film(SHOTS), rtol=1e-4, atol=1e-5)


def test_a_cut_moves_the_film_in_time_and_a_continued_shot_does_not(tiny: Tiny) -> None:
    """Same prompts, with and without the cut: the cut's RoPE offset alone tells them apart at its own block."""
    assert not torch.equal(tiny.film("A |B")[:, :, 2:], tiny.film("A B")[:, :, 2:])
    stay = tiny.memory(rope_offset=0.0)
    assert torch.equal(tiny.film("A |B", stay), tiny.film("A B", stay))
    plan = tiny.plan("A |B")
    continued = replace(plan, blocks=(plan.blocks[0], replace(plan.blocks[1], cut=False)))
    assert continued.shots == 2 and torch.equal(tiny.film("", plan=continued), tiny.film("A B"))


def test_clean_recache_forgets_what_is_before_a_cut(tiny: Tiny) -> None:
    """The cut block, which is made before that, is the same; the next one sees only it and the global sink."""
    plain, recached = tiny.film(SHOTS), tiny.film(SHOTS, tiny.memory(shot_clean_recache=True))
    assert torch.equal(plain[:, :, :8], recached[:, :, :8])
    assert not torch.equal(plain[:, :, 8:10], recached[:, :, 8:10])


@pytest.mark.parametrize("changes", [{"sink": 0}, {"shot_sink": False}], ids=str)
def test_clean_recache_without_a_shot_sink_forgets_nothing(tiny: Tiny, changes: dict[str, object]) -> None:
    """Where a cut pins no block, it drops none either."""
    recached = tiny.memory(shot_clean_recache=True, **changes)
    assert torch.equal(tiny.film(SHOTS, recached), tiny.film(SHOTS, tiny.memory(**changes)))


def test_text_is_encoded_once_per_distinct_prompt(tiny: Tiny) -> None:
    """Text is encoded once per distinct prompt, the negative prompt included."""
    asked: Counter[str] = Counter()

    def text(prompt: str) -> Tensor:
        asked[prompt] += 1
        return tiny.text(prompt)

    tiny.film("A A |B B |A A |C |B", text=text, guidance=2.0, negative="N")
    assert asked == {"A": 1, "B": 1, "C": 1, "N": 1}


def test_keys_of_prompts_in_use_are_computed_once(tiny: Tiny) -> None:
    """The negative prompt's, which every block uses, stay in memory however many prompts come and go."""
    model, computed = Proxy(tiny), list[Tensor]()

    def text_kv(text: Tensor) -> tuple[KeyValue, ...]:
        computed.append(text)
        return tiny.model.text_kv(text)

    model.text_kv = text_kv
    tiny.film("A |B |C |D |E", model=model, guidance=2.0, negative="N")
    assert len(computed) == 6


def test_every_block_takes_its_steps_and_a_clean_pass(tiny: Tiny) -> None:
    """Every block takes one model call per step and one for its clean pass."""
    model = Proxy(tiny)
    tiny.film("A A |B", model=model, steps=3)
    assert model.calls == 3 * (3 + 1)


def test_guidance_runs_a_second_kv_cache(tiny: Tiny) -> None:
    """Guidance runs a second branch with its own KV cache, and close to 1 it makes the film without guidance."""
    model = Proxy(tiny)
    guided = tiny.film("A A |B", model=model, guidance=3.0, negative="N")
    assert model.calls == 2 * 3 * (2 + 1)
    assert not torch.equal(guided, tiny.film("A A |B"))
    torch.testing.assert_close(tiny.film("A A |B", guidance=1.0 + 1e-7), tiny.film("A A |B"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_guidance_below_1_mixes_the_two_prompts(tiny: Tiny, guidance: float) -> None:
    """Any other value than 1 runs both branches; at 0 the negative prompt alone makes the film."""
    model = Proxy(tiny)
    film = tiny.film("A A", model=model, guidance=guidance, negative="N")
    assert model.calls == 2 * 2 * (2 + 1) and not torch.equal(film, tiny.film("A A"))
    if not guidance:
        torch.testing.assert_close(film, tiny.film("N N"), rtol=1e-4, atol=1e-5)


def test_nothing_is_sampled_before_it_is_requested(tiny: Tiny) -> None:
    """The model is called only for a block that is requested."""
    model = Proxy(tiny)
    film = tiny.generate(SHOTS, model=model)
    assert model.calls == 0
    next(film)
    assert (model.calls, film.position, film.done) == (2, 1, False)


def test_a_block_is_returned_before_its_clean_pass(tiny: Tiny) -> None:
    """The pass runs when the next block is requested; the last block's at the iterator's end or for a snapshot."""
    model = Proxy(tiny)
    film = tiny.generate("A |B", model=model)
    calls: list[int] = []
    for _ in film:
        calls.append(model.calls)
    assert calls == [2, 2 + 1 + 2] and model.calls == 2 * (2 + 1)
    early = tiny.generate("A |B")
    next(early), next(early)
    for one, other in zip(film.snapshot().pools[0], early.snapshot().pools[0], strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("changes", MEMORIES, ids=str)
@pytest.mark.parametrize("at", [4, 6])
def test_a_film_continues_from_another(tiny: Tiny, changes: dict[str, object], at: int) -> None:
    """A film that continues from a generation repeats no clean pass, and that generation ends."""
    memory, model = tiny.memory(**changes), Proxy(tiny)
    plan = tiny.plan(SHOTS)
    first = tiny.generate("", memory, plan=replace(plan, blocks=plan.blocks[:at]), model=model)
    film = [next(first).latents for _ in range(at)]
    second = tiny.generate(SHOTS, memory, model=model)
    assert second.continue_from(first) and second.position == at
    film += [block.latents for block in second]
    assert torch.equal(torch.cat(film, dim=2), tiny.film(SHOTS, memory))
    assert model.calls == len(plan.blocks) * (2 + 1)
    assert next(first, None) is None


def test_a_film_does_not_continue_from_another_kind_or_model(tiny: Tiny) -> None:
    """A film continues only from one of the same model, memory settings, guidance and negative prompt."""
    first = tiny.generate("A A A A A")
    next(first)
    for other in (
        tiny.generate(SHOTS, model=Proxy(tiny)),
        tiny.generate(SHOTS, tiny.memory(window=12)),
        tiny.generate(SHOTS, guidance=2.0),
    ):
        assert not other.continue_from(first) and other.position == 0
    rest = torch.cat([block.latents for block in first], dim=2)
    assert torch.equal(rest, tiny.film("A A A A A")[:, :, 2:])
    guided = tiny.generate("A A A A A", guidance=2.0, negative="N")
    next(guided)
    assert not tiny.generate(SHOTS, guidance=2.0, negative="M").continue_from(guided)
    assert tiny.generate(SHOTS, guidance=2.0, negative="N").continue_from(guided)


@pytest.mark.parametrize("bad", range(9))
def test_a_call_that_runs_out_of_memory_is_repeated(tiny: Tiny, bad: int) -> None:
    """In a step or in a clean pass, memory is freed once, and the film is the same."""

    class Full(Proxy):
        def __call__(self, x: Tensor, *rest: object) -> Tensor:
            if self.calls == bad:
                self.calls += 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__call__(x, *rest)  # type: ignore[arg-type]

        def write_kv(self, x: Tensor, *rest: object) -> None:
            if self.calls == bad:
                self.calls += 1
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().write_kv(x, *rest)  # type: ignore[arg-type]

    freed: list[int] = []
    film = tiny.film("A |B |C", model=Full(tiny), free=lambda: freed.append(1))
    assert torch.equal(film, tiny.film("A |B |C")) and freed == [1]


def test_a_device_that_stays_full_names_the_block(tiny: Tiny) -> None:
    """A second out-of-memory error names block and shot, and the film stays before that block."""

    class Full(Proxy):
        def __call__(self, x: Tensor, *rest: object) -> Tensor:
            if self.calls >= 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().__call__(x, *rest)  # type: ignore[arg-type]

    film = tiny.generate("A |B |C", model=Full(tiny), free=lambda: None)
    next(film)
    with pytest.raises(OutOfMemoryError, match=r"block 1 \(shot 2\) ran out of memory"):
        next(film)
    assert film.position == 1


def test_known_blocks_are_not_sampled(tiny: Tiny) -> None:
    """Anywhere in the film only their clean pass runs, and the blocks after them attend them."""
    model, film = Proxy(tiny), tiny.film(SHOTS)
    known = {index: film[:, :, 2 * index : 2 * index + 2] for index in (0, 3, 4)}
    known[5] = torch.zeros_like(known[0])
    made = tiny.film(SHOTS, model=model, known=lambda block: known.get(block.index))
    assert torch.equal(made[:, :, :10], film[:, :, :10])
    assert torch.equal(made[:, :, 10:12], known[5])
    assert not torch.equal(made[:, :, 12:14], film[:, :, 12:14])
    blocks = film.shape[2] // 2
    assert model.calls == 2 * (blocks - 4) + blocks


@pytest.mark.slow
@pytest.mark.parametrize("changes", MEMORIES, ids=str)
@pytest.mark.parametrize("at", [0, 2, 4, 7])
def test_a_restored_film_goes_on_bit_for_bit(tiny: Tiny, tmp_path: Path, changes: dict[str, object], at: int) -> None:
    """A film that is restored from a saved snapshot goes on to the bit, with any memory settings."""
    memory = tiny.memory(**changes)
    film = tiny.generate(SHOTS, memory)
    for _ in range(at):
        next(film)
    film.snapshot().save(tmp_path / "film.safetensors")
    rest = [block.latents for block in film]
    again = tiny.generate(SHOTS, memory, resume=Snapshot.load(tmp_path / "film.safetensors"))
    assert again.position == at
    for block, expected in zip(again, rest, strict=True):
        assert torch.equal(block.latents, expected)


def test_a_guided_film_is_restored_with_both_kv_caches(tiny: Tiny) -> None:
    """A snapshot of a guided film has both KV caches, so the film goes on to the bit."""
    options = {"guidance": 3.0, "negative": "N"}
    film = tiny.generate(SHOTS, **options)
    for _ in range(5):
        next(film)
    again = tiny.generate(SHOTS, resume=film.snapshot(), **options)
    for one, other in zip(film, again, strict=True):
        assert torch.equal(one.latents, other.latents)


def test_a_snapshot_continues_into_another_plan(tiny: Tiny) -> None:
    """For a retake or a longer film: only the plan after the snapshot's block matters."""
    film = tiny.generate("A A A |B B")
    blocks = [next(film).latents for _ in range(3)]
    longer = tiny.generate("A A A |C C C C", resume=film.snapshot())
    made = torch.cat([*blocks, *(block.latents for block in longer)], dim=2)
    assert torch.equal(made, tiny.film("A A A |C C C C"))


def test_a_finished_film_is_restored_as_finished(tiny: Tiny) -> None:
    """Its snapshot stands at the end of the plan: nothing is left to make, and a longer plan goes on from it."""
    film = tiny.generate("A A |B")
    made = [block.latents for block in film]
    again = tiny.generate("A A |B", resume=film.snapshot())
    assert again.done and list(again) == []
    longer = tiny.generate("A A |B B", resume=again.snapshot())
    assert torch.equal(torch.cat([*made, *(block.latents for block in longer)], dim=2), tiny.film("A A |B B"))


@pytest.mark.parametrize("changes", [changes for changes in MEMORIES if changes], ids=str)
def test_a_snapshot_of_other_memory_settings_is_refused(tiny: Tiny, changes: dict[str, object]) -> None:
    """Its keys and values would fit the slots, and the film would go on as none that a single run makes."""
    with pytest.raises(ValueError, match="the snapshot was made with other settings; memory: saved"):
        tiny.generate("A", tiny.memory(**changes), resume=tiny.generate("A").snapshot())


def test_a_snapshot_is_a_copy(tiny: Tiny) -> None:
    """A snapshot is a copy that later blocks do not change."""
    film = tiny.generate(SHOTS)
    next(film)
    snapshot = film.snapshot()
    rest = [block.latents for block in film]
    film.restore(snapshot)
    for block, expected in zip(film, rest, strict=True):
        assert torch.equal(block.latents, expected)


def test_a_snapshot_of_another_run_is_refused_by_setting(tiny: Tiny, tmp_path: Path) -> None:
    """A snapshot of other settings or past the plan's end, a damaged one and any other file are refused."""
    snapshot = tiny.generate("A").snapshot()
    with pytest.raises(ValueError, match=r"guided: saved False, now True; memory: saved .*window=8"):
        tiny.generate("A", tiny.memory(window=12), guidance=2.0, resume=snapshot)
    film = tiny.generate(SHOTS)
    for _ in range(4):
        next(film)
    with pytest.raises(ValueError, match="continues at block 4, but the plan has 2 blocks"):
        tiny.generate("A A", resume=film.snapshot())
    film.snapshot().save(path := tmp_path / "film.safetensors")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its tensors do not match their checksum"):
        Snapshot.load(path)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match=r"other\.safetensors is not a snapshot"):
        Snapshot.load(other)
    other.write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"other\.safetensors is not a snapshot"):
        Snapshot.load(other)


class Interrupt(Exception):
    """In place of Ctrl-C or the host's cancel."""


@pytest.mark.slow
@pytest.mark.parametrize("changes", MEMORIES, ids=str)
def test_an_interrupt_at_any_call_costs_nothing(tiny: Tiny, changes: dict[str, object]) -> None:
    """A film that is interrupted at every model call, before and after K/V are written, is the same to the bit."""
    memory = tiny.memory(**changes)

    class Nervous(Proxy):
        def __init__(self) -> None:
            super().__init__(tiny)
            self.tried: set[object] = set()

        def interrupt(self, t: Tensor, positions: Tensor) -> None:
            key = (float(t.sum()), float(positions[0]))
            if key not in self.tried:
                self.tried.add(key)
                raise Interrupt

        def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
            flow = super().__call__(x, t, text, kv, positions)
            self.interrupt(t, positions)
            return flow

        def write_kv(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> None:
            self.model.write_kv(torch.full_like(x, torch.nan), t, text, kv, positions)
            self.interrupt(t, positions)
            self.model.write_kv(x, t, text, kv, positions)

    film, blocks, interrupts = tiny.generate(SHOTS, memory, model=Nervous()), list[Block](), 0
    while True:
        try:
            block = next(film, None)
        except Interrupt:
            interrupts += 1
            continue
        if block is None:
            break
        blocks.append(block)
    assert interrupts == 9 * 3
    assert torch.equal(torch.cat([block.latents for block in blocks], dim=2), tiny.film(SHOTS, memory))


def test_a_stop_ends_the_iteration_within_a_step_and_can_be_taken_back(tiny: Tiny) -> None:
    """A stop ends the iteration before the next step; once it is over, the film goes on to the bit."""
    model, stop = Proxy(tiny), [False]

    def on_step(step: Step) -> None:
        stop[0] = step.block.index == 1 and model.calls == 3 + 1

    film = tiny.generate("A A |B", model=model, on_step=on_step, should_stop=lambda: stop[0])
    first = list(film)
    assert len(first) == 1 and not film.done and model.calls == 3 + 1
    stop[0] = False
    rest = list(film)
    assert film.done
    assert torch.equal(torch.cat([block.latents for block in (*first, *rest)], dim=2), tiny.film("A A |B"))


def test_every_step_reports_a_preview_and_the_last_is_the_block(tiny: Tiny) -> None:
    """Every step reports its block, its index and its x0, and the last x0 is the block, within rounding."""
    reports: list[Step] = []
    blocks = list(tiny.generate("A |B", steps=3, on_step=reports.append))
    assert [(step.block.index, step.index, step.steps) for step in reports] == [
        (block, step, 3) for block in (0, 1) for step in (1, 2, 3)
    ]
    torch.testing.assert_close(reports[-1].x0, blocks[-1].latents, rtol=1e-4, atol=1e-5)


def test_nan_from_the_model_names_the_block_and_keeps_the_rest(tiny: Tiny) -> None:
    """NaN from the model is an error with block, shot and frames; the blocks before it hold, and the film can go on."""

    class Spoilt(Proxy):
        def change_flow(self, flow: Tensor) -> Tensor:
            return flow * torch.nan if 7 <= self.calls < 9 else flow

    film = tiny.generate("A A |B B", model=Spoilt(tiny))
    good = [next(film), next(film)]
    with pytest.raises(NotFiniteError, match=r"block 2 \(shot 2, latent frames 4 to 5\)") as caught:
        next(film)
    assert caught.value.block.index == 2
    rest = [block.latents for block in film]  # the fault has passed, so the film is completed
    assert torch.equal(torch.cat([*(block.latents for block in good), *rest], dim=2), tiny.film("A A |B B"))


def test_an_image_is_the_first_frame_and_clean_in_every_step(tiny: Tiny) -> None:
    """A start image is the first latent frame, clean and at t = 0 in every step of block 0 and in its previews."""
    seen: list[tuple[list[float], Tensor]] = []

    class Watching(Proxy):
        def __call__(self, x: Tensor, t: Tensor, text: TextKVCache, kv: KVCache, positions: Tensor) -> Tensor:
            seen.append((t[0].tolist(), x[:, :, :1].clone()))
            return super().__call__(x, t, text, kv, positions)

    image, previews = torch.randn(1, 4, 1, 4, 6), list[Step]()
    film = tiny.film("A A", model=Watching(tiny), prefix=image, on_step=previews.append)
    assert torch.equal(film[:, :, :1], image)
    assert all(torch.equal(step.x0[:, :, :1], image) for step in previews[:2])
    assert [t for t, _ in seen] == [[0.0, 999.0], [0.0, 833.0], [999.0, 999.0], [833.0, 833.0]]
    assert all(torch.equal(first, image) for _, first in seen[:2])


@pytest.mark.parametrize("given", [2, 6, 8, 18])
def test_a_film_is_extended_from_its_own_beginning(tiny: Tiny, given: int) -> None:
    """A film whose beginning is given as the prefix is the same to the bit, including cuts and sinks."""
    film = tiny.film(SHOTS)
    assert torch.equal(tiny.film(SHOTS, prefix=film[:, :, :given]), film)


def test_a_film_may_be_extended_from_the_middle_of_a_block(tiny: Tiny) -> None:
    """A prefix that ends within a block stays to the bit, and the rest of the block is sampled."""
    film = tiny.film(SHOTS)
    model = Proxy(tiny)
    longer = tiny.film(SHOTS, model=model, prefix=film[:, :, :5])
    assert longer.shape == film.shape and torch.equal(longer[:, :, :5], film[:, :, :5])
    assert model.calls == 2 + 7 * (2 + 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 20, 4, 6), "prefix .*1 … 18 latent frames"),
        ((1, 4, 2, 4, 4), "prefix"),
        ((2, 4, 2, 4, 6), "prefix"),
        ((4, 2, 4, 6), "prefix"),
    ],
)
def test_a_prefix_of_another_shape_is_refused(tiny: Tiny, shape: tuple[int, ...], message: str) -> None:
    """A prefix that is longer than the film, or of another shape, is refused."""
    with pytest.raises(ValueError, match=message):
        tiny.generate(SHOTS, prefix=torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps 0"),
        ({"seed": -1}, "seed -1 is outside"),
        ({"seed": 2**64}, "is outside"),
        ({"batch": 0}, "batch 0 is below 1"),
        ({"shift": 0.0}, "shift 0.0"),
        ({"prefix": torch.full((1, 4, 1, 4, 6), torch.nan)}, "prefix contains NaN"),
    ],
)
def test_settings_that_cannot_run_are_refused_before_any_work(
    tiny: Tiny, options: dict[str, object], message: str
) -> None:
    """A setting that cannot run is refused by name before the model is called."""
    model = Proxy(tiny)
    with pytest.raises(ValueError, match=message):
        tiny.generate("A", model=model, **options)
    assert model.calls == 0


def test_unknown_kv_formats_are_refused(tiny: Tiny) -> None:
    """A KV format that does not exist is refused with those that do."""
    with pytest.raises(ValueError, match="kv_format 'int3' is not available; choose one of"):
        tiny.generate("A", tiny.memory(kv_format="int3"))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ((), "no blocks"),
        ((BlockSpec(0, 0, "A", True, None, 0, 2),), "cannot be a cut"),
        ((BlockSpec(1, 0, "A", False, None, 0, 2),), "block 0 of the plan has index 1"),
        ((BlockSpec(0, 0, "A", False, None, 0, 3),), "blocks must be consecutive, with 2 frames each"),
    ],
)
def test_a_plan_that_does_not_add_up_is_refused(tiny: Tiny, blocks: tuple[BlockSpec, ...], message: str) -> None:
    """A plan without blocks, with a cut at block 0, or with blocks out of order or of another length is refused."""
    with pytest.raises(ValueError, match=message):
        tiny.generate("", plan=BlockPlan(blocks, 24.0, 2))


def test_the_kv_cache_does_not_grow_with_the_film(tiny: Tiny) -> None:
    """The KV cache has one size from a full window on, however long the film is."""
    film = tiny.generate(" ".join(["A"] * 60))
    sizes: list[int] = []
    for index, _ in enumerate(film):
        if index > 8:
            sizes.append(sum(tensor.numel() for pool in film.snapshot().pools for tensor in pool))
    assert len(set(sizes)) == 1


def test_a_bf16_kv_cache_is_close_to_float32(tiny: Tiny) -> None:
    """A KV cache in bf16 moves the latents by a relative L2 below 0.02."""
    exact, rounded = tiny.film(SHOTS), tiny.film(SHOTS, tiny.memory(kv_format="bf16"))
    assert not torch.equal(exact, rounded)
    assert float((exact - rounded).norm() / exact.norm()) < 0.02


def test_noise_comes_from_a_seed_or_a_source(tiny: Tiny) -> None:
    """Both at once are refused; a source of the seed's noise makes the same film as the seed."""
    with pytest.raises(ValueError, match="seed 3 and a source of noise are both given"):
        tiny.generate("A", seed=3, noise=block_noise(3))
    assert torch.equal(tiny.film("A |B", seed=3), tiny.film("A |B", noise=block_noise(3)))


@pytest.mark.parametrize("seam", ["plain", "align"])
@pytest.mark.parametrize("relative", [False, True])
def test_independent_shots_depend_on_the_sink_and_themselves(tiny: Tiny, seam: str, relative: bool) -> None:
    """Other words in shot 2 change all shots after it, and with independent shots that shot alone, to the bit."""
    for independent in (False, True):
        memory = tiny.memory(independent_shots=independent, relative_rope=relative)
        film, other = (tiny.film(f"A A |{word} {word} |C C C", memory, seam=seam) for word in "BD")
        frames = [torch.equal(film[:, :, at : at + 4], other[:, :, at : at + 4]) for at in (0, 4, 8)]
        assert frames == [True, False, independent]
        first = tiny.film("E A |B B |C C C", memory, seam=seam)
        assert not torch.equal(first[:, :, 8:], film[:, :, 8:])  # they see the global sink
