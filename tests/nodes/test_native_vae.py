"""Which decoder runs a VAE of the host: ours on an NVIDIA GPU for the weights of Wan 2.2, otherwise the host's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from longlive.longlive_core.vae import VAEConfig, WanVAE
from torch import Tensor

from .fake_host import fake_host


class Patcher:
    """The host's ModelPatcher: a model, its devices, and attachments by name."""

    def __init__(self, model: object, load_device: torch.device, offload_device: torch.device) -> None:
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.attachments: dict[str, object] = {}

    def get_attachment(self, name: str) -> object:
        return self.attachments.get(name)

    def set_attachments(self, name: str, value: object) -> None:
        self.attachments[name] = value


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    monkeypatch.setattr(torch.version, "hip", None)
    with fake_host() as load:
        load("comfy.model_patcher").ModelPatcher = Patcher
        load("comfy.model_management").vae_offload_device = lambda: torch.device("cpu")
        yield load


def hosted(host: Callable[[str], Any], weights: dict[str, Tensor], device: str = "cuda:0", kind: str = "WanVAE") -> Any:  # noqa: ANN401
    """A VAE of the host whose model is of this class."""
    model = getattr(host("comfy.ldm.wan.vae2_2"), kind)()
    model.state_dict = lambda: weights
    where = torch.device(device)
    return SimpleNamespace(first_stage_model=model, device=where, patcher=Patcher(model, where, torch.device("cpu")))


def weights() -> dict[str, Tensor]:
    """Those of a whole VAE of the topology of Wan 2.2."""
    torch.manual_seed(0)
    return WanVAE(VAEConfig(dim=4, dec_dim=4, mean=(0.0,) * 48, std=(1.0,) * 48)).state_dict()


def test_on_nvidia_ours_has_the_hosts_weights(host: Callable[[str], Any]) -> None:
    """It is made once for a VAE, loads where the VAE does, and its convolutions lie as cuDNN reads them."""
    given = weights()
    vae, decoder_patcher = hosted(host, given), host("longlive.nodes.native_vae").decoder_patcher
    patcher = decoder_patcher(vae)
    assert isinstance(patcher.model, WanVAE) and decoder_patcher(vae) is patcher
    assert (patcher.load_device, patcher.offload_device) == (vae.device, torch.device("cpu"))
    own = patcher.model.state_dict()
    assert own and all(torch.equal(value, given[name]) for name, value in own.items())
    weight = patcher.model.decoder.conv1.weight
    assert weight.ndim == 5 and weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_other_weights_are_decoded_by_the_host(host: Callable[[str], Any], caplog: pytest.LogCaptureFixture) -> None:
    """A missing name and another shape fall back, with one warning for a VAE."""
    name = next(name for name in weights() if name.startswith("decoder.middle"))
    for change in ({}, {name: torch.zeros(7)}):
        vae = hosted(host, {**{key: value for key, value in weights().items() if key != name}, **change})
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            assert [host("longlive.nodes.native_vae").decoder_patcher(vae) for _ in range(2)] == [vae.patcher] * 2
        assert len(caplog.records) == 1 and "other weights than Wan 2.2" in caplog.records[0].message


@pytest.mark.parametrize(
    ("device", "kind", "hip"), [("cpu", "WanVAE", None), ("cuda", "TAE", None), ("cuda", "WanVAE", "6")]
)
def test_elsewhere_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, host: Callable[[str], Any], device: str, kind: str, hip: str | None
) -> None:
    """A CPU, another VAE and an AMD card keep the host's decoder, and nothing is made."""
    monkeypatch.setattr(torch.version, "hip", hip)
    vae = hosted(host, weights(), device, kind)
    assert host("longlive.nodes.native_vae").decoder_patcher(vae) is vae.patcher and not vae.patcher.attachments
