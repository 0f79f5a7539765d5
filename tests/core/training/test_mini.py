"""Training of LongLive Mini: what its batches hold, its counterfactual loss, and runs that go on to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from longlive.longlive_core.memory import Window
from longlive.longlive_core.mini import VAE_FILE, Mini, TextEncoder, load_mini, save_vae
from longlive.longlive_core.model.nvfp4_products import NVFP4Settings
from longlive.longlive_core.script import CUT_PREFIX
from longlive.longlive_core.training import films as films_module
from longlive.longlive_core.training import mini as mini_module
from longlive.longlive_core.training import mini_stage, vae_stage
from longlive.longlive_core.training import trainer as trainer_module
from longlive.longlive_core.training.captions import SHAPE_WORDS, vocabulary
from longlive.longlive_core.training.counterfactual import counterfactual_loss, decoder_metric, resemblance
from longlive.longlive_core.training.films import (
    SHARD_FILMS,
    encode_film,
    encode_films,
    heads,
    load_films,
    training_film,
)
from longlive.longlive_core.training.gates import gate_film
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.training.mini import Hooks, MiniRun, prepare, train_mini
from longlive.longlive_core.training.mini_batches import (
    PERIOD_FRAMES,
    SLOTS,
    Batch,
    film_batch,
    random_history,
    random_positions,
    single_batch,
)
from longlive.longlive_core.training.mini_stage import MiniSettings, MiniStage, mini_loss
from longlive.longlive_core.training.vae import train_vae
from longlive.longlive_core.training.workers import ALONE
from longlive.longlive_core.training.world import SHAPES, WorldFilm, sample_film
from longlive.longlive_core.types import BLOCK_FRAMES
from longlive.longlive_core.vae import WanVAE
from safetensors.torch import load_file

from .toy_mini import TINY_DIT, TINY_VAE, random_films, train, weights
from .toy_vae import toy_run

SHAPE_NAMES = {word for words in SHAPE_WORDS.values() for word in words}
HERO_SHARE = 0.02


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot takes longer than all the rest of a toy run."""
    monkeypatch.setattr(trainer_module, "save_plot", lambda *_: None)


def window_history(shots: tuple[int, ...], slots: int) -> tuple[tuple[int, ...], ...]:
    """What each block attends to in a KV cache with both sinks."""
    window, seen = Window(slots, sinks=1, shot_sink=True), list[tuple[int, ...]]()
    for block in range(len(shots)):
        window.begin(block)
        seen.append(window.attended()[:-1])
        window.end(cut=block in heads(shots)[1:])
    return tuple(seen)


SHOTS = (0, 0, 1, 1, 1, 2, 2, 2)
HISTORIES = [random_history(SHOTS, np.random.default_rng((8, i))) for i in range(400)]


def test_a_history_holds_earlier_blocks_and_one_of_the_same_shot() -> None:
    """Blocks attend to earlier ones, after the first block to at least one, and within a shot to one of the shot."""
    for history in HISTORIES:
        assert history[0] == ()
        for block, seen in enumerate(history[1:], 1):
            assert seen
            assert set(seen) <= set(range(block))
            assert block in heads(SHOTS) or SHOTS[block] in {SHOTS[other] for other in seen}


def test_histories_are_those_of_the_kv_cache_and_more() -> None:
    """Among histories are the default KV cache's, long ones, ones without the first block, and recalled blocks."""
    assert any(history == window_history(SHOTS, 4) for history in HISTORIES)
    assert sum(len(history[7]) > 2 for history in HISTORIES) > len(HISTORIES) // 2
    assert any(len(history[7]) > 4 for history in HISTORIES)
    assert any(0 not in history[3] for history in HISTORIES)
    assert all(1 not in window_history(SHOTS, slots)[7] for slots in SLOTS)
    assert any(1 in history[7] for history in HISTORIES)


def test_single_blocks_start_a_shot_and_their_captions_describe_the_hero() -> None:
    """A single block is the first of its shot, with the other shapes of that shot and a caption of the hero."""
    films = random_films()
    cuts = 0
    for step in range(20):
        batch = single_batch(films, 4, np.random.default_rng((1, step)))
        for clean, others, (text,) in zip(batch.clean, batch.others, batch.captions, strict=True):
            film, shot = next(
                (film, shot)
                for film in films
                for shot, block in enumerate(heads(film.shots))
                if torch.equal(film.latents[:, BLOCK_FRAMES * block :][:, :BLOCK_FRAMES].float(), clean)
            )
            assert torch.equal(others[0], film.others[shot].float())
            assert text.startswith(CUT_PREFIX) == (shot > 0)
            assert set(SHAPE_WORDS[film.film.hero.shape]) & set(text.split())
            cuts += shot > 0
    assert 10 < cuts < 70


def test_film_batches_describe_the_hero_in_the_first_shot_and_rarely_later() -> None:
    """Captions of the first shot describe the hero, later ones rarely; a cut's first block alone has the prefix."""
    later: list[bool] = []
    for step in range(60):
        batch = film_batch(random_films(), 16, np.random.default_rng((2, step)))
        for row, texts in enumerate(batch.captions):
            assert tuple(b for b, text in enumerate(texts) if b == 0 or text.startswith(CUT_PREFIX)) == batch.heads
            assert SHAPE_NAMES & set(texts[0].split())
            later += [bool(SHAPE_NAMES & set(texts[block].split())) for block in batch.heads[1:]]
            film = next(f for f in random_films() if torch.equal(f.latents[:, :8].float(), batch.clean[row, :, :8]))
            assert torch.equal(film.others[: len(batch.heads)].float(), batch.others[row])
    assert 0 < sum(later) < len(later) / 3


def test_film_batches_show_long_shots_and_cost_about_the_same() -> None:
    """Batches hold a third block of a shot, and the number of their clean and noisy blocks is limited."""
    third = 0
    for step in range(60):
        batch = film_batch(random_films(), 15, np.random.default_rng((3, step)))
        blocks = batch.clean.shape[2] // BLOCK_FRAMES
        assert blocks >= 3
        assert len(batch.clean) * (2 * blocks - 1) <= 15
        assert len(batch.history) == blocks
        lengths = np.diff([*batch.heads, blocks])
        third += int(lengths.max()) > 2
    assert third > 20


def test_a_global_sink_is_as_far_away_as_in_films_of_two_minutes() -> None:
    """In one film of twenty the last block is 700 latent frames behind the first, and in most it is near."""
    rng = np.random.default_rng(5)
    last = [float(random_positions((0, 0, 1, 1), rng)[-1]) for _ in range(400)]
    assert np.quantile(last, 0.95) > 700 and np.median(last) < 200


def test_positions_move_forward_and_jump_by_whole_periods() -> None:
    """Positions grow by 1 within a block, and by whole periods plus the offset of a cut between blocks."""
    for step in range(40):
        batch = film_batch(random_films(), 16, np.random.default_rng((10, step)))
        for row in batch.positions:
            gaps = row.diff()
            assert (gaps[torch.arange(len(gaps)) % BLOCK_FRAMES != BLOCK_FRAMES - 1] == 1).all()
            for block in range(1, len(row) // BLOCK_FRAMES):
                jump = float(gaps[BLOCK_FRAMES * block - 1]) - 1 - (8 if block in batch.heads else 0)
                assert jump >= 0
                assert jump % PERIOD_FRAMES == 0


def test_a_loss_is_a_function_of_seed_step_and_part() -> None:
    """Equal seed, step and part give an equal loss; another of them gives another."""
    mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)

    def loss(seed: int, step: int, part: int) -> float:
        stage = MiniStage(mini, random_films(), torch.eye(48), MiniSettings(2, 8, seed=seed))
        return float(stage.loss("model", step, part).value.detach())

    assert loss(0, 1, 1) == loss(0, 1, 1)
    assert len({loss(0, 1, 1), loss(1, 1, 1), loss(0, 2, 1), loss(0, 1, 0), loss(0, 1, 3)}) == 5


def test_the_counterfactual_loss_measures_the_way_to_another_shape() -> None:
    """q is 0 at the truth, 1 half-way to another shape and 2 at it, in any metric; moving away costs nothing."""
    generator = torch.Generator().manual_seed(0)
    clean, others = torch.randn(2, 4, 3, 2, 2, generator=generator), torch.randn(2, 3, 4, 3, 2, 2, generator=generator)
    root = torch.randn(4, 4, generator=generator)
    metric = root @ root.T
    assert counterfactual_loss(clean, clean, others, metric) == 0
    for share, q in ((0.5, 1.0), (1.0, 2.0), (-1.0, -2.0)):
        moved = clean + share * (others[:, 1] - clean)
        assert torch.allclose(resemblance(moved, clean, others, metric)[:, 1], torch.tensor(q), atol=1e-4)
    one = others[:, :1]
    assert torch.allclose(counterfactual_loss(one[:, 0], clean, one, metric), torch.tensor(4.0), atol=1e-4)
    assert counterfactual_loss(2 * clean - one[:, 0], clean, one, metric) == 0


@pytest.mark.slow
def test_the_decoders_metric_predicts_how_far_pixels_move() -> None:
    """A small change of a latent frame moves pixels about as far as the metric says, up to one constant factor."""
    torch.manual_seed(0)
    vae = WanVAE(TINY_VAE).requires_grad_(False)
    metric = decoder_metric(vae, clips=1)
    assert torch.equal(metric, metric.T) or torch.allclose(metric, metric.T, atol=1e-5)
    assert float(metric.diagonal().mean()) == pytest.approx(1)
    assert torch.linalg.eigvalsh(metric).min() > -1e-4
    film = sample_film(np.random.default_rng((0, 3, 0)), (9,))
    latents = encode_film(vae, film, (0,)).latents[None].float()
    base, ratios = vae.reconstruct(latents), list[float]()
    for seed in range(6):
        change = torch.randn(48, generator=torch.Generator().manual_seed(seed))
        signs = torch.sign(torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)))
        moved = latents.clone()
        moved[0, :, 1] += 0.1 * change[:, None, None] * signs
        ratios.append(float((vae.reconstruct(moved) - base).square().sum() / (change @ metric @ change)))
    assert max(ratios) < 2 * min(ratios)


def test_the_loss_of_a_perfect_model_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that predicts the noise minus the clean latents has no error and no counterfactual loss."""
    mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
    batch = film_batch(random_films(), 8, np.random.default_rng(0))

    def perfect(
        _model: object, _context: torch.Tensor, noisy: torch.Tensor, t: torch.Tensor, *_: object, **__: object
    ) -> torch.Tensor:
        # (noisy − clean) / sigma, with sigma unrounded: the truth of the flow where timesteps are whole numbers.
        return (noisy - batch.clean[:, None]) / (t[:, :, None, :, None, None] / 1000)

    monkeypatch.setattr("longlive.longlive_core.training.mini_stage.teacher_forced_flow", perfect)
    flow, other = mini_loss(mini, batch, torch.eye(48), 1.0, np.random.default_rng(0))
    assert flow < 1e-4
    assert other < 1e-4


def test_blocks_may_attend_what_the_model_made_of_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `own_context` all clean blocks but the first, the global sink, are predictions of the model."""
    mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
    batch = film_batch(random_films(), 8, np.random.default_rng(0))
    contexts, made = list[torch.Tensor](), list[torch.Tensor]()

    def half(
        _model: object, context: torch.Tensor, noisy: torch.Tensor, t: torch.Tensor, *_: object, **__: object
    ) -> torch.Tensor:
        contexts.append(context)
        flow = 0.5 * noisy
        made.append((noisy - t[:, :, None, :, None, None] / 1000 * flow)[:, 0])
        return flow

    monkeypatch.setattr("longlive.longlive_core.training.mini_stage.teacher_forced_flow", half)
    for own in (False, True):
        contexts.clear()
        mini_loss(mini, batch, torch.eye(48), 1.0, np.random.default_rng(0), own_context=own)
        torch.testing.assert_close(contexts[-1][:, :, :BLOCK_FRAMES], contexts[0][:, :, :BLOCK_FRAMES])
    true, own = contexts
    torch.testing.assert_close(own[:, :, BLOCK_FRAMES:], made[0][:, :, BLOCK_FRAMES:], atol=1e-2, rtol=0)
    assert not torch.allclose(own[:, :, BLOCK_FRAMES:], true[:, :, BLOCK_FRAMES:], atol=0.1)


def test_only_films_of_one_hero_attend_the_models_own_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """About OWN_CONTEXT of the batches of films do, and no other batch."""
    mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
    stage = MiniStage(mini, random_films(), torch.eye(48), MiniSettings(singles=2, film_blocks=4), casts=random_films())
    shown: dict[str, list[bool]] = {}

    def loss(*_: object, own_context: bool, **__: object) -> tuple[torch.Tensor, ...]:
        shown.setdefault(kinds[-1], []).append(own_context)
        return torch.zeros(()), torch.zeros(())

    kinds = list[str]()
    for name in ("film_batch", "single_batch", "cast_batch"):
        real = getattr(mini_stage, name)

        def noted(*arguments: Any, name: str = name, real: Any = real) -> Batch:  # noqa: ANN401
            kinds.append(name)
            return real(*arguments) if name != "cast_batch" else single_batch(*arguments)

        monkeypatch.setattr(mini_stage, name, noted)
    monkeypatch.setattr(mini_stage, "mini_loss", loss)
    for step in range(60):
        for part in range(2):
            stage.loss("model", step, part)
    assert not any(shown["single_batch"]) and not any(shown["cast_batch"])
    assert 0.25 < np.mean(shown["film_batch"]) < 0.75


@pytest.mark.slow
def test_the_other_shapes_differ_in_the_hero_alone() -> None:
    """A shot's other latents are those of the film with another hero, and differ from its own where the hero is."""
    vae = load_mini().vae
    film = sample_film(np.random.default_rng(5), (29, 20))
    shots = (0, 1)
    encoded = encode_film(vae, film, shots)
    assert encoded.others.shape == (2, 3, 48, 3, 8, 8)
    others = [shape for shape in SHAPES if shape != film.hero.shape]
    for number, shape in enumerate(others[:2]):
        whole = encode_film(vae, WorldFilm(replace(film.hero, shape=shape), film.shots), shots).latents.float()
        for shot, block in enumerate(heads(shots)):
            frames = slice(BLOCK_FRAMES * block, BLOCK_FRAMES * block + 3)
            own, other = encoded.latents[:, frames].float(), encoded.others[shot, number].float()
            apart, error = (other - own).square(), (other - whole[:, frames]).square()
            assert error.mean() < 0.02 * apart.mean()
            hero = (encoded.hero[frames] > HERO_SHARE).expand_as(apart)
            assert apart[hero].mean() > 5 * apart[~hero].mean()


@pytest.mark.slow
def test_encoding_goes_on_with_the_missing_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two processes hold the films in order; those that exist stay; other films and damage are refused."""
    monkeypatch.setattr(films_module, "SHARD_FILMS", 1)
    monkeypatch.setattr(films_module, "CUT_PATTERNS", ((1,),))
    torch.manual_seed(0)
    vae = WanVAE(TINY_VAE).requires_grad_(False)
    assert encode_films(vae, tmp_path, 0, 3, process=0, processes=2)
    with pytest.raises(FileNotFoundError, match="00001"):
        load_films(vae, tmp_path, 0, 3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert not encode_films(vae, tmp_path, 0, 3, should_stop=lambda: True)
    assert encode_films(vae, tmp_path, 0, 3, process=1, processes=2)
    assert encode_films(vae, tmp_path, 0, 3)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    loaded = load_films(vae, tmp_path, 0, 3)
    assert [film.film for film in loaded] == [training_film(0, index)[0] for index in range(3)]
    assert torch.equal(loaded[1].latents, encode_film(vae, *training_film(0, 1)).latents)
    for other, seed in ((vae, 1), (WanVAE(TINY_VAE), 0)):
        with pytest.raises(ValueError, match="another seed, VAE"):
            load_films(other, tmp_path, seed, 3)
        with pytest.raises(ValueError, match="another seed, VAE"):
            encode_films(other, tmp_path, seed, 3)


def test_shapes_take_turns_in_the_films() -> None:
    """Each shape is in a quarter of the films of a shard and of the films of the gates."""
    assert SHARD_FILMS % len(SHAPES) == 0
    for film in (lambda i: training_film(0, i)[0], lambda i: gate_film(i)[0]):
        assert [film(index).hero.shape for index in range(8)] == [*SHAPES, *SHAPES]


def test_the_script_of_a_gate_describes_the_hero_once() -> None:
    """In the films of the gates, the first caption describes the hero and the second does not."""
    for index in range(20):
        film, script = gate_film(index)
        first, second = script.splitlines()
        assert set(SHAPE_WORDS[film.hero.shape]) & set(first.split())
        assert not (SHAPE_NAMES | {film.hero.colour}) & set(second.split())


def test_a_stopped_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    """A run that is stopped within a step and resumed ends in the weights and averages of one that is not."""
    whole = weights(train(ALONE, tmp_path / "a"))
    stops = chain(repeat(False, 5), repeat(True))
    assert train(ALONE, tmp_path / "b", should_stop=lambda: next(stops)).step == 2
    resumed = weights(train(ALONE, tmp_path / "b"))
    assert whole.keys() == resumed.keys()
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []


@pytest.mark.slow
def test_two_processes_train_as_one(root: Path, tmp_path: Path) -> None:
    """Two processes with a part of each batch end in the weights, averages and log of one process with both parts."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "longlive").symlink_to(root, target_is_directory=True)
    script = Path(__file__).with_name("toy_mini.py")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "path")}
    subprocess.run([sys.executable, script, tmp_path], env=environment, check=True)
    one, two = load_file(tmp_path / "one.safetensors"), load_file(tmp_path / "two.safetensors")
    assert one.keys() == two.keys()
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []
    logs = [[{**line, "seconds": 0} for line in TrainingLog(tmp_path / name).lines()] for name in ("one", "two")]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_a_run_writes_a_model_that_loads_and_a_second_call_trains_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from the shipped VAE and random weights writes three files; called again, it only reads its checkpoints."""
    monkeypatch.setattr(films_module, "SHARD_FILMS", 4)
    monkeypatch.setattr(films_module, "CUT_PATTERNS", ((1, 2),))
    monkeypatch.setattr(mini_module, "decoder_metric", lambda *_: torch.eye(48))
    run = MiniRun(tmp_path, shipped_vae=True, films=4, steps=2)
    lines: list[str] = []
    trained = train_mini(run, Hooks(lines.append))
    assert trained is not None
    loaded, start = load_mini(tmp_path), load_mini(tmp_path / "start")
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, trained.model.state_dict()[name].bfloat16().float()), name
    assert any(not torch.equal(v, start.model.state_dict()[n]) for n, v in trained.model.state_dict().items())
    assert all(torch.equal(v, load_mini().vae.state_dict()[n]) for n, v in loaded.vae.state_dict().items())
    assert any("shard" in line for line in lines)
    monkeypatch.setattr(MiniStage, "loss", None)
    again = train_mini(run, Hooks(lambda line: pytest.fail(line) if "shard" in line else None))
    assert again is not None
    assert all(torch.equal(v, trained.model.state_dict()[n]) for n, v in again.model.state_dict().items())


@pytest.mark.slow
def test_a_vae_is_trained_first_or_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new VAE is trained phase by phase and can be stopped there; the VAE of a folder is taken as it is."""
    monkeypatch.setattr(mini_module, "VAERun", lambda seed: replace(toy_run(steps=1), seed=seed))
    monkeypatch.setattr(mini_module, "train_vae", partial(train_vae, config=TINY_VAE))
    monkeypatch.setattr(vae_stage, "held_out_psnr", lambda *_: 20.0)
    lines: list[str] = []
    new = MiniRun(tmp_path / "new")
    assert train_mini(new, Hooks(lines.append, should_stop=lambda: True)) is None
    assert lines == ["vae images: 1 steps"] and not (new.folder / "start").exists()
    start = prepare(new, Hooks(lines.append))
    assert start is not None and start.vae.config.mean != TINY_VAE.mean
    assert lines[1:] == [f"vae {phase}: 1 steps" for phase in ("images", "clips", "films")]
    (tmp_path / "vae").mkdir()
    save_vae(start.vae, tmp_path / "vae" / VAE_FILE, torch.float32)
    taken = prepare(MiniRun(tmp_path / "taken", seed=1, vae=tmp_path / "vae"), Hooks(pytest.fail))
    assert taken is not None and taken.vae.config == start.vae.config
    assert all(torch.equal(value, taken.vae.state_dict()[name]) for name, value in start.vae.state_dict().items())
    with pytest.raises(FileNotFoundError, match=r"nwe has no vae\.safetensors; give the folder of"):
        prepare(MiniRun(tmp_path / "other", vae=tmp_path / "nwe"), Hooks(pytest.fail))


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """The shipped transformer needs its VAE, and several processes need the CPU."""
    with pytest.raises(ValueError, match="one VAE"):
        MiniRun(tmp_path, shipped_vae=True, vae=tmp_path)
    with pytest.raises(ValueError, match="shipped VAE"):
        MiniRun(tmp_path, from_mini=True)
    with pytest.raises(ValueError, match="processes"):
        MiniRun(tmp_path, processes=2, device="cuda")
    with pytest.raises(ValueError, match="1 or more"):
        MiniRun(tmp_path, films=0)
    with pytest.raises(ValueError, match="learning rate 0 must be above 0 and at most 1"):
        MiniRun(tmp_path, lr=0)


def test_options_reach_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning rate, size of batches and NVFP4 of a run are those of the stage; NVFP4 is for memory, too."""
    seen: list[MiniSettings] = []

    def stage(*arguments: object) -> None:
        seen.extend(value for value in arguments if isinstance(value, MiniSettings))
        raise RuntimeError("enough")

    monkeypatch.setattr(mini_module, "encode_data", lambda run, hooks: prepare(run, hooks) is not None)
    for name, value in (("load_films", ()), ("_metric", torch.eye(48))):
        monkeypatch.setattr(mini_module, name, lambda *_, value=value: value)
    monkeypatch.setattr(mini_module, "MiniStage", stage)
    for nvfp4 in (False, True):
        run = MiniRun(tmp_path, shipped_vae=True, from_mini=True, lr=2e-4, nvfp4=nvfp4, batch=2)
        with pytest.raises(RuntimeError, match="enough"):
            train_mini(run, Hooks(pytest.fail))
    plain, four_bits = seen
    assert (plain.lr, plain.singles, plain.nvfp4, plain.kv_format) == (2e-4, 24, None, None)
    assert four_bits == replace(plain, nvfp4=NVFP4Settings(), kv_format="nvfp4")


def test_the_text_encoder_knows_every_caption() -> None:
    """No word of a batch is unknown to the text encoder."""
    encoder = TextEncoder(vocabulary())
    for step in range(10):
        for texts in film_batch(random_films(), 16, np.random.default_rng((4, step))).captions:
            assert [encoder.unknown_words(text) for text in texts] == [()] * len(texts)
