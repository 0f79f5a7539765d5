"""Training of the VAE: batches and losses from (seed, step, part), a resumed curriculum, and video from images."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import VAE_FILE, load_vae
from longlive.longlive_core.training import vae as vae_module
from longlive.longlive_core.training import vae_stage
from longlive.longlive_core.training.log import TrainingLog
from longlive.longlive_core.training.optim import Optimiser
from longlive.longlive_core.training.settings import VAERun
from longlive.longlive_core.training.stage import OptimiserSettings, Stage
from longlive.longlive_core.training.trainer import Trainer
from longlive.longlive_core.training.trainer_settings import TrainerSettings
from longlive.longlive_core.training.vae import inflate, train_vae
from longlive.longlive_core.training.vae_stage import VAEStage, clip_batch
from longlive.longlive_core.vae import WanVAE

from .toy_vae import PHASES, TINY_VAE, toy_run, train_toy

CLIPS = replace(VAERun().clips, crop=32, batch=2)
CONFIG = """
seed = 3
save_every = 1
statistics = 1
"""


@pytest.fixture
def no_psnr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out films take longer than all the rest of a toy run."""
    monkeypatch.setattr(vae_stage, "held_out_psnr", lambda *_: 20.0)


def tiny() -> WanVAE:
    """A random VAE."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WanVAE(TINY_VAE)


def logged(folder: Path) -> list[list[dict[str, float]]]:
    """The lines of all phases without times."""
    logs = (TrainingLog(folder / phase).lines() for phase in PHASES)
    return [[{k: v for k, v in line.items() if k != "seconds"} for line in lines] for lines in logs]


def test_the_parts_of_a_step_hold_the_clips_of_one_larger_batch() -> None:
    """Clips depend on seed, step and row; two parts of two clips are the four clips of one part."""
    video, mask = clip_batch(replace(CLIPS, batch=4), 3, 7)
    assert video.shape == (4, 3, 5, 32, 32) and mask.shape == (4, 1, 5, 32, 32)
    for part in range(2):
        rows = slice(2 * part, 2 * part + 2)
        for whole, own in zip((video, mask), clip_batch(CLIPS, 3, 7, part), strict=True):
            assert torch.equal(whole[rows], own)
    for seed, step in ((4, 7), (3, 8)):
        assert not torch.equal(video[:2], clip_batch(CLIPS, seed, step)[0])


@pytest.mark.parametrize("decoder", [False, True])
def test_a_loss_is_a_function_of_seed_step_and_part(decoder: bool) -> None:
    """Equal seed, step and part give an equal loss, whatever was computed before; another of them gives another."""
    model = tiny()

    def loss(seed: int, step: int, part: int) -> float:
        stage = VAEStage(model, "clips", replace(CLIPS, batch=1), seed, decoder=decoder)
        return float(stage.loss(stage.trained[0].name, step, part).value.detach())

    first = loss(0, 1, 1)
    others = [loss(1, 1, 1), loss(0, 2, 1), loss(0, 1, 0)]
    assert loss(0, 1, 1) == first and first not in others


def test_parts_of_a_step_have_noise_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clips give another loss in another part, step or run, because the noise of the posterior is another."""
    one = clip_batch(replace(CLIPS, batch=1), 0, 0)
    monkeypatch.setattr(vae_stage, "clip_batch", lambda *_: one)
    stages = [VAEStage(tiny(), "clips", CLIPS, seed) for seed in range(2)]
    places = itertools.product(stages, range(2), range(3))
    assert len({float(stage.loss("vae", step, part).value.detach()) for stage, step, part in places}) == 12


def test_what_is_trained() -> None:
    """A phase trains the whole VAE; the decoder alone is trained with everything else frozen."""
    model = tiny()
    VAEStage(model, "clips", CLIPS, 0)
    assert all(p.requires_grad for p in model.parameters())
    (trained,) = VAEStage(model, "polish", CLIPS, 0, decoder=True).trained
    assert trained.module is model.decoder
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {"decoder"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_psnr")
def test_a_run_stopped_again_and_again_ends_in_the_same_weights(tmp_path: Path) -> None:
    """A curriculum that is stopped within steps and between phases equals an uninterrupted one, to the bit."""
    run = toy_run(accumulation=2)
    whole = train_toy(run, tmp_path / "whole")
    assert whole is not None
    stops, stopped = 0, None
    while stopped is None:
        answers = itertools.chain(itertools.repeat(False, 3), itertools.repeat(True))
        stopped = train_toy(run, tmp_path / "stopped", lambda answers=answers: next(answers))
        stops += stopped is None
    assert stops >= 4
    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")
    assert [n for n, value in whole.state_dict().items() if not torch.equal(value, stopped.state_dict()[n])] == []
    assert stopped.config == whole.config != TINY_VAE


@pytest.mark.usefixtures("no_psnr")
def test_images_are_inflated_once_and_clips_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first phase with several frames starts from an inflated image autoencoder; later ones do not inflate."""
    calls: list[str] = []
    monkeypatch.setattr(vae_module, "inflate", lambda _: calls.append("inflate"))

    def train(stage: Stage, settings: TrainerSettings, folder: Path) -> bool:
        calls.append(stage.name)
        assert folder == tmp_path / stage.name.removeprefix("vae ") and settings.steps == 2
        return True

    vae = train_vae(toy_run(), tmp_path, train, config=TINY_VAE)
    assert calls == ["vae images", "inflate", "vae clips", "vae films"]
    assert vae is not None and not any(p.requires_grad for p in vae.parameters())


def test_inflation_keeps_the_first_frame_and_repeats_it() -> None:
    """After inflation, a repeated latent frame decodes to the image of that latent in every frame."""
    torch.manual_seed(0)
    model = tiny().requires_grad_(False)
    latent = torch.randn(1, 48, 1, 2, 2)
    image = model.decode(latent)
    inflate(model)
    film = model.decode(latent.repeat(1, 1, 3, 1, 1))
    assert torch.allclose(film[:, :, :1], image, atol=1e-5)
    assert torch.allclose(film, image.expand_as(film), atol=1e-4)


def test_every_kernel_and_vector_is_trained() -> None:
    """One step of Muon and AdamW changes every parameter of the VAE."""
    stage = VAEStage(tiny(), "clips", replace(CLIPS, batch=1), 0)
    before = {name: value.clone() for name, value in stage.vae.state_dict().items()}
    optimiser = Optimiser(stage.vae, CLIPS.optimiser)
    stage.loss("vae", 0, 0).value.backward()
    optimiser.step()
    assert [name for name, value in stage.vae.state_dict().items() if torch.equal(value, before[name])] == []
    assert set(optimiser.state_dict()) == {"adam", "muon"}


@pytest.mark.usefixtures("no_psnr")
@pytest.mark.parametrize("decoder", [False, True])
def test_a_phase_goes_on_from_its_own_start(tmp_path: Path, decoder: bool) -> None:
    """A phase whose predecessor was trained further is refused; statistics of latents that differ a little are not."""

    def trainer(steps: int, change: float = 0.0) -> Trainer:
        model = tiny()
        model.config = replace(TINY_VAE, mean=(1e-7 * steps,) * 48)
        with torch.no_grad():
            model.conv1.bias += change
        stage = VAEStage(model, "clips", replace(CLIPS, batch=1), 0, decoder=decoder)
        return Trainer(stage, TrainerSettings(steps), tmp_path)

    assert trainer(1).run() and trainer(2).run()
    with pytest.raises(ValueError, match=r"of start 'VAE \(\w{16}\)', not 'VAE \(\w{16}\)': choose another folder"):
        trainer(3, change=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 6}, "6 must be 1"),
        ({"crop": 40}, "multiple of 16"),
        ({"optimiser": OptimiserSettings(lr=0.1, ema_decay=0.9)}, "'ema_decay' is not for the VAE"),
    ],
)
def test_phases_that_the_vae_cannot_take_are_refused(change: dict[str, Any], message: str) -> None:
    """Clips have 1 + 4 k frames and whole latent cells; there is no average that nobody would read."""
    with pytest.raises(ValueError, match=message):
        replace(CLIPS, **change)


@pytest.mark.slow
@pytest.mark.usefixtures("no_psnr")
def test_the_command_writes_a_vae(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`longlive train vae` runs the four phases and writes a VAE that loads; called again, it trains no more."""
    monkeypatch.setattr(vae_module, "train_vae", partial(train_vae, config=TINY_VAE))
    config, out = tmp_path / "vae.toml", tmp_path / "out"
    config.write_text(CONFIG + "".join(f"[{name}]\nsteps = 1\ncrop = 32\nbatch = 1\n" for name in PHASES))
    command = ["train", "vae", str(config), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count("1 step done") == 4 and f"wrote {out / VAE_FILE}" in printed
    vae = load_vae(out / VAE_FILE)
    assert vae.config.mean != TINY_VAE.mean
    monkeypatch.setattr(VAEStage, "loss", None)
    assert main(command) == 0
    again = load_vae(out / VAE_FILE)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in vae.state_dict().items())
    assert main(["train", "status", str(out / "polish")]) == 0
    assert "validation psnr 20" in capsys.readouterr().out
