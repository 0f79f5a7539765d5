"""Training can be stopped at any step, and teaches the model what inference will show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from longlive.longlive_core.memory import Window
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.model import WanConfig
from longlive.longlive_core.script import CUT_PREFIX
from longlive.longlive_core.training import dit, vae
from longlive.longlive_core.training.captions import vocabulary
from longlive.longlive_core.training.films import Films, training_film
from longlive.longlive_core.training.optim import MuonAdam
from longlive.longlive_core.types import BLOCK_FRAMES
from longlive.longlive_core.vae import VAEConfig, WanVAE

TINY_VAE = VAEConfig(dim=4, dec_dim=4, mean=(0.0,) * 48, std=(1.0,) * 48)
TINY_DIT = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=1, freq_dim=16, text_dim=16, text_len=48, channels=48)


@pytest.fixture(scope="module")
def data() -> Films:
    """Films whose latents are noise: enough for everything but learning."""
    chosen = [training_film(0, index) for index in range(40)]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(40, 48, 48, 2, 2, generator=generator).half()
    hero = (torch.rand(40, 48, 2, 2, generator=generator) > 0.8).half()
    return Films(latents, hero, tuple(f for f, _ in chosen), torch.tensor([s for _, s in chosen]), TINY_VAE)


class Stopped(Exception):
    """A power cut."""


def silent(_: str) -> None:
    """A log that nobody reads."""


def stop_at_step(schedule: Callable[..., float], last: int) -> Callable[..., float]:
    """The learning-rate schedule, and a power cut before step `last` ends."""

    def interrupted(step: int, *rest: float) -> float:
        if step == last:
            raise Stopped
        return schedule(step, *rest)

    return interrupted


@pytest.mark.slow
def test_a_stopped_vae_run_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "MINI_VAE", TINY_VAE)
    monkeypatch.setattr(vae, "psnr", lambda *_: 0.0)
    image = vae.VAEStage("images", 1, 32, 2, steps=4, horizon=9, muon_lr=0.01, adam_lr=1e-3, final_scale=0.1)
    clips = replace(image, name="clips", frames=5)
    whole = vae.train_vae(tmp_path / "a", 0, silent, (image, clips), every=2)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(vae, "cosine", stop_at_step(vae.cosine, 3))
        vae.train_vae(tmp_path / "b", 0, silent, (image, clips), every=2)
    resumed = vae.train_vae(tmp_path / "b", 0, silent, (image, clips), every=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_stopped_transformer_run_ends_in_the_same_weights(
    tmp_path: Path, data: Films, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = (
        dit.DiTStage("single", blocks=1, batch=1, copies=1, steps=6, horizon=9, lr=1e-3, final_scale=0.5, skip=1),
        dit.DiTStage("films", blocks=4, batch=1, copies=1, steps=2, horizon=9, lr=1e-3, final_scale=0.5, skip=0),
    )
    runs: list[Mini] = []
    for folder, stops in (("a", False), ("b", True)):
        mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
        if stops:
            with monkeypatch.context() as patch, pytest.raises(Stopped):
                patch.setattr(dit, "cosine", stop_at_step(dit.cosine, 5))
                dit.train_dit(mini, data, tmp_path / folder, 0, silent, stages, every=2)
            mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
        dit.train_dit(mini, data, tmp_path / folder, 0, silent, stages, every=2)
        runs.append(mini)
    whole, resumed = runs
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_inflation_keeps_the_first_frame_and_repeats_it() -> None:
    torch.manual_seed(0)
    model = WanVAE(TINY_VAE).requires_grad_(False)
    latent = torch.randn(1, 48, 1, 2, 2)
    image = model.decode(latent)
    vae.inflate(model)
    film = model.decode(latent.repeat(1, 1, 3, 1, 1))
    assert torch.allclose(film[:, :, :1], image, atol=1e-5)
    assert torch.allclose(film, image.expand_as(film), atol=1e-4)


def test_every_kernel_and_vector_is_trained() -> None:
    torch.manual_seed(0)
    model = WanVAE(TINY_VAE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = MuonAdam(model.parameters(), muon_lr=0.01, adam_lr=0.01)
    video, mask = vae.clip_batch(replace(vae.STAGES[1], crop=32, batch=1), 0, 0)
    vae.reconstruction_loss(model, video, mask, torch.Generator()).backward()
    optimiser.step()
    still = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    assert still == []


def test_each_block_is_taught_with_what_memory_would_hold(data: Films) -> None:
    stage = dit.STAGES[-1]
    for step in range(40):
        batch = dit.film_batch(data, replace(stage, batch=1), np.random.default_rng((9, step)))
        texts = batch.captions[0]
        cuts = [text.startswith(CUT_PREFIX) for text in texts]
        candidates = []
        for slots in (3, 4):
            window = Window(slots, sinks=1, shot_sink=True)
            seen: list[tuple[int, ...]] = []
            for block, cut in enumerate(cuts):
                window.begin(block)
                seen.append(window.attended()[:-1])
                window.end(cut=cut)
            candidates.append(tuple(seen))
        assert batch.history in candidates
        assert not cuts[0]


def test_positions_move_forward_and_jump_by_whole_periods(data: Films) -> None:
    for step in range(40):
        batch = dit.film_batch(data, dit.STAGES[-1], np.random.default_rng((10, step)))
        for row, texts in zip(batch.positions, batch.captions, strict=True):
            gaps = row.diff()
            assert (gaps[torch.arange(len(gaps)) % BLOCK_FRAMES != BLOCK_FRAMES - 1] == 1).all()
            for block, text in enumerate(texts[1:], 1):
                jump = float(gaps[BLOCK_FRAMES * block - 1]) - 1 - (8 if text.startswith(CUT_PREFIX) else 0)
                assert jump >= 0
                assert jump % dit.PERIOD_FRAMES == 0


def test_a_batch_is_a_function_of_seed_and_step(data: Films) -> None:
    first, again = (dit.film_batch(data, dit.STAGES[-1], np.random.default_rng((1, 2, 3))) for _ in range(2))
    other = dit.film_batch(data, dit.STAGES[-1], np.random.default_rng((1, 2, 4)))
    assert torch.equal(first.clean, again.clean)
    assert first.captions == again.captions
    assert first.captions != other.captions
