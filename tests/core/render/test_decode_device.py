"""The device that decodes: which names are one, and that only the VAE goes there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.parallel import ALONE
from longlive.longlive_core.pipeline.decode_device import decode_device
from longlive.longlive_core.render import load_film
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.video import read_video

from ..takes import latents, make_mini, make_take, same


@pytest.mark.parametrize(
    ("name", "gpus", "device"), [("cpu", 0, "cpu"), ("last", 3, "cuda:2"), ("0", 1, "cuda:0"), ("1", 2, "cuda:1")]
)
def test_names_of_devices(name: str, gpus: int, device: str) -> None:
    """An index counts the visible GPUs from 0, and `last` is the last one of them."""
    assert decode_device(name, gpus) == device


@pytest.mark.parametrize(
    ("name", "gpus", "says"),
    [
        ("last", 0, "--decode-gpu last: this machine has no GPU; use cpu, or leave"),
        ("1", 1, "--decode-gpu 1: this machine has one GPU: use 0"),
        ("3", 3, "--decode-gpu 3: this machine has 3 GPUs: use last, or an index from 0 to 2"),
        ("-1", 2, "--decode-gpu -1: .*from 0 to 1"),
        ("cuda:1", 2, "--decode-gpu cuda:1: .*from 0 to 1"),
    ],
)
def test_devices_that_are_not_there(name: str, gpus: int, says: str) -> None:
    """What the machine lacks is refused with what it has."""
    with pytest.raises(ValueError, match=says):
        decode_device(name, gpus)


@pytest.mark.parametrize(
    "command", [["render", "script.txt", "-o", "film.mp4"], ["retake", "film.take", "--shot", "2"]]
)
def test_the_commands_refuse_it_first(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any rank starts or a file is read: neither the script nor the take is there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main([*command, "--gpus", "2", "--decode-gpu", "last"]) == 2
    assert "--decode-gpu last: this machine has no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_only_the_vae_goes_there(settings: RenderSettings) -> None:
    """The model stays where it is, and a rank that decodes nothing leaves its VAE, too."""
    mini, elsewhere = make_mini(), replace(settings, decode_device="meta")
    loaded = load_film.load_film(elsewhere, mini, fingerprint=False)
    assert loaded.mini.vae.conv2.weight.device.type == "meta" and mini.model.device.type == "cpu"
    rank = load_film.load_rank(ALONE, elsewhere)
    assert rank.model.device.type == "cpu"
    # A video that a film continues is encoded there.
    latent, _ = mini.vae.encode_chunk(torch.zeros(1, 3, 1, 32, 32), None)
    assert latent.device.type == "meta"


@pytest.mark.slow
def test_takes_and_films_do_not_depend_on_it(mini: Mini, settings: RenderSettings) -> None:
    """Blocks, recorded settings and pixels are the same, and a take goes on with or without it."""
    usual = make_take(mini, settings)
    other = Job(replace(settings, output=settings.output.with_name("other.mp4"), decode_device="cpu"), mini=mini)
    assert other.run() and other.take is not None
    assert all(same(latents(usual), latents(other.take))) and usual.settings == other.take.settings
    assert torch.equal(read_video(settings.output), read_video(other.output_settings.output))
    assert RenderSettings.resumed(usual.folder, decode_device="cpu").decode_device == "cpu"
