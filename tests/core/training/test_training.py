"""Training of the VAE resumes at any step, starts video from images, and updates every weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.model import WanConfig
from longlive.longlive_core.training import vae
from longlive.longlive_core.training.optim import MuonAdam
from longlive.longlive_core.vae import VAEConfig, WanVAE

TINY_VAE = VAEConfig(dim=4, dec_dim=4, mean=(0.0,) * 48, std=(1.0,) * 48)
TINY_DIT = WanConfig(dim=24, ffn_dim=32, num_heads=2, num_layers=1, freq_dim=16, text_dim=16, text_len=48, channels=48)


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
