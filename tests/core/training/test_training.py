"""Training resumes at any step, and its batches show the model what inference shows it."""

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
from longlive.longlive_core.training.films import FilmDataset, training_film
from longlive.longlive_core.training.optim import MuonAdam
from longlive.longlive_core.types import BLOCK_FRAMES
from longlive.longlive_core.vae import VAEConfig, WanVAE

TINY_VAE = VAEConfig(dim=4, dec_dim=4, mean=(0.0,) * 48, std=(1.0,) * 48)
TINY_DIT = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=1, freq_dim=16, text_dim=16, text_len=48, channels=48)


@pytest.fixture(scope="module")
def data() -> FilmDataset:
    """A data set of random latents, which is enough to test everything except learning."""
    chosen = [training_film(0, index) for index in range(40)]
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(40, 48, 48, 2, 2, generator=generator).half()
    hero = (torch.rand(40, 48, 2, 2, generator=generator) > 0.8).half()
    return FilmDataset(latents, hero, tuple(f for f, _ in chosen), torch.tensor([s for _, s in chosen]), TINY_VAE)


class Stopped(Exception):
    """Raised to interrupt training."""


def silent(_: str) -> None:
    """A log that discards its lines."""


def stop_at_step(schedule: Callable[..., float], last: int) -> Callable[..., float]:
    """The learning-rate schedule, which raises `Stopped` before step `last` ends."""

    def interrupted(step: int, *rest: float) -> float:
        if step == last:
            raise Stopped
        return schedule(step, *rest)

    return interrupted


@pytest.mark.slow
def test_a_stopped_vae_run_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted and resumed run of the VAE ends in the weights of a run without interruption, to the bit."""
    monkeypatch.setattr(vae, "MINI_VAE", TINY_VAE)
    monkeypatch.setattr(vae, "held_out_psnr", lambda *_: 0.0)
    image = vae.Phase("images", 1, 32, 2, steps=4, horizon=9, muon_lr=0.01, adam_lr=1e-3, final_scale=0.1)
    clips = replace(image, name="clips", frames=5)
    whole = vae.train_vae(tmp_path / "a", 0, silent, (image, clips), every=2)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(vae, "cosine_schedule", stop_at_step(vae.cosine_schedule, 3))
        vae.train_vae(tmp_path / "b", 0, silent, (image, clips), every=2)
    resumed = vae.train_vae(tmp_path / "b", 0, silent, (image, clips), every=2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_stopped_transformer_run_ends_in_the_same_weights(
    tmp_path: Path, data: FilmDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted and resumed run of the transformer ends in the weights of a run without interruption."""
    phases = (
        dit.Phase("single", blocks=1, batch=1, copies=1, steps=6, horizon=9, lr=1e-3, final_scale=0.5, skip=1),
        dit.Phase("films", blocks=4, batch=1, copies=1, steps=2, horizon=9, lr=1e-3, final_scale=0.5, skip=0),
    )
    runs: list[Mini] = []
    for folder, interrupted in (("a", False), ("b", True)):
        mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
        if interrupted:
            with monkeypatch.context() as patch, pytest.raises(Stopped):
                patch.setattr(dit, "cosine_schedule", stop_at_step(dit.cosine_schedule, 5))
                dit.train_dit(mini, data, tmp_path / folder, 0, silent, phases, every=2)
            mini = Mini.random(0, vocabulary(), TINY_DIT, TINY_VAE)
        dit.train_dit(mini, data, tmp_path / folder, 0, silent, phases, every=2)
        runs.append(mini)
    whole, resumed = runs
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_inflation_keeps_the_first_frame_and_repeats_it() -> None:
    """After inflation, a repeated latent frame decodes to the image of that latent in every frame."""
    torch.manual_seed(0)
    model = WanVAE(TINY_VAE).requires_grad_(False)
    latent = torch.randn(1, 48, 1, 2, 2)
    image = model.decode(latent)
    vae.inflate(model)
    film = model.decode(latent.repeat(1, 1, 3, 1, 1))
    assert torch.allclose(film[:, :, :1], image, atol=1e-5)
    assert torch.allclose(film, image.expand_as(film), atol=1e-4)


def test_every_kernel_and_vector_is_trained() -> None:
    """One step of MuonAdam changes every parameter of the VAE."""
    torch.manual_seed(0)
    model = WanVAE(TINY_VAE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = MuonAdam(model.parameters(), muon_lr=0.01, adam_lr=0.01)
    video, mask = vae.clip_batch(replace(vae.PHASES[1], crop=32, batch=1), 0, 0)
    vae.reconstruction_loss(model, video, mask, torch.Generator()).backward()
    optimiser.step()
    unchanged = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    assert unchanged == []


def test_each_block_attends_to_what_the_kv_cache_would_hold(data: FilmDataset) -> None:
    """The history of each batch is that of a KV cache of 3 or 4 blocks with both sinks."""
    phase = dit.PHASES[-1]
    for step in range(40):
        batch = dit.film_batch(data, replace(phase, batch=1), np.random.default_rng((9, step)))
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


def test_positions_move_forward_and_jump_by_whole_periods(data: FilmDataset) -> None:
    """Positions grow by 1 within a block, and by whole periods plus the offset of a cut between blocks."""
    for step in range(40):
        batch = dit.film_batch(data, dit.PHASES[-1], np.random.default_rng((10, step)))
        for row, texts in zip(batch.positions, batch.captions, strict=True):
            gaps = row.diff()
            assert (gaps[torch.arange(len(gaps)) % BLOCK_FRAMES != BLOCK_FRAMES - 1] == 1).all()
            for block, text in enumerate(texts[1:], 1):
                jump = float(gaps[BLOCK_FRAMES * block - 1]) - 1 - (8 if text.startswith(CUT_PREFIX) else 0)
                assert jump >= 0
                assert jump % dit.PERIOD_FRAMES == 0


def test_a_batch_is_a_function_of_seed_and_step(data: FilmDataset) -> None:
    """Equal seed and step give an equal batch; another step gives another."""
    first, again = (dit.film_batch(data, dit.PHASES[-1], np.random.default_rng((1, 2, 3))) for _ in range(2))
    other = dit.film_batch(data, dit.PHASES[-1], np.random.default_rng((1, 2, 4)))
    assert torch.equal(first.clean, again.clean)
    assert first.captions == again.captions
    assert first.captions != other.captions
