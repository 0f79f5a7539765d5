"""Trainable LoRAs: they share a frozen base, and their files are those that the loader reads."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.linears import NVFP4Linear, quantize_linears, replace_linears
from longlive.longlive_core.training.lora import (
    AdaptedModel,
    LoraCard,
    LoraSettings,
    add_adapter,
    load_adapter,
    read_card,
    save_lora,
)
from longlive.longlive_core.training.teacher_forcing import plain_flow
from longlive.longlive_core.weights import CheckpointError, open_source, read_lora
from torch import Tensor, nn

from ..conftest import Tiny

SETTINGS = LoraSettings(rank=3, alpha=3.0)
CARD = LoraCard(base="tiny", data="words", steps=7, sampler_steps=4, rope_offset=8.0)


def flow(model: CausalWan) -> Tensor:
    """A flow of two blocks."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, model.config.channels, 4, 4, 6, generator=generator)
    text = torch.randn(1, 3, model.config.text_dim, generator=generator)
    return plain_flow(model, x, torch.full((1, 4), 500.0), text, torch.zeros(1, 2).long(), torch.arange(4.0), 2)


def randomise(weights: nn.Module, seed: int = 1) -> None:
    """Sets A and B to random numbers."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in weights.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)


def test_a_new_adapter_changes_nothing_and_needs_no_global_random_numbers(tiny: Tiny) -> None:
    """B is zero, A follows the seed only, the parameters are float32, and the base gets no gradient."""
    model, before, expected = deepcopy(tiny.model), torch.get_rng_state(), flow(tiny.model)
    weights = add_adapter(model, "generator", SETTINGS, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(flow(model), expected)
    names = [name for name, _ in weights.named_parameters()]
    assert len(names) == 2 * 2 * 10 and "blocks.1.ffn.2.lora_B.weight" in names
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name.replace(".weight", ".generator.weight") for name in names
    }
    again = add_adapter(deepcopy(tiny.model), "generator", SETTINGS, seed=5)
    other = add_adapter(deepcopy(tiny.model), "generator", SETTINGS, seed=6)
    for name, parameter in weights.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, again.get_parameter(name))
        if ".lora_A." in name:
            assert not torch.equal(parameter, other.get_parameter(name))
            # kaiming_uniform with a = √5 is uniform within ± 1 / √in.
            assert 0.8 < float(parameter.detach().abs().max()) * parameter.shape[1] ** 0.5 <= 1


def test_adapters_share_the_base_and_nothing_else(tiny: Tiny) -> None:
    """Each adapter changes its own flow only, gets its own gradient only, and without any the base is as before."""
    model, base = deepcopy(tiny.model), flow(tiny.model)
    generator, critic = (add_adapter(model, name, SETTINGS) for name in ("generator", "critic"))
    randomise(generator)
    changed = flow(AdaptedModel(model, "generator").activate())
    assert not torch.allclose(changed, base, atol=1e-3)
    assert torch.equal(flow(AdaptedModel(model, "critic").activate()), base)
    assert torch.equal(flow(AdaptedModel(model, None).activate()), base)
    changed.square().mean().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters())
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert all(parameter.requires_grad for parameter in (*generator.parameters(), *critic.parameters()))


@pytest.mark.parametrize("alpha", [3.0, 1.5])
def test_our_loader_reads_a_saved_lora(tiny: Tiny, tmp_path: Path, alpha: float) -> None:
    """A saved LoRA has the official names and gives the same flow through the loader, whatever its alpha."""
    model, path, settings = deepcopy(tiny.model), tmp_path / "lora.safetensors", LoraSettings(3, alpha)
    weights = add_adapter(model, "generator", settings)
    randomise(weights)
    save_lora(path, weights, settings, CARD)
    source = open_source(path)
    assert "base_model.model.blocks.0.self_attn.q.lora_A.weight" in source.specs
    lora, fresh = read_lora(path), deepcopy(tiny.model)
    report = lora.add_bypass(fresh)
    assert (len(report.applied), report.missing, report.unused) == (20, (), ())
    assert (report.ranks, report.alphas) == ((3,), (alpha,))
    torch.testing.assert_close(flow(fresh), flow(model).detach(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(flow(fresh), flow(tiny.model), atol=1e-3)
    assert read_card(source.metadata) == CARD


def test_a_saved_lora_can_be_trained_further(tiny: Tiny, tmp_path: Path) -> None:
    """The weights of a file are loaded to the bit into the adapter of a new run."""
    path, weights = tmp_path / "lora.safetensors", add_adapter(deepcopy(tiny.model), "generator", SETTINGS)
    randomise(weights)
    save_lora(path, weights, SETTINGS, CARD)
    model = deepcopy(tiny.model)
    loaded = add_adapter(model, "generator", SETTINGS)
    load_adapter(model, "generator", path)
    for name, parameter in weights.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter)


def test_a_part_of_a_killed_run_is_written_over(tiny: Tiny, tmp_path: Path) -> None:
    """A run that was killed while it wrote its LoRA goes on: the part of the file that is left stops nothing."""
    path = tmp_path / "lora.safetensors"
    part = path.with_name("lora.safetensors.part")
    part.write_bytes(b"half a LoRA")
    save_lora(path, add_adapter(deepcopy(tiny.model), "generator", SETTINGS), SETTINGS, CARD)
    assert read_card(open_source(path).metadata) == CARD
    assert not part.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LoraSettings(2, 3.0), "has rank 3 and alpha 3, but this run trains rank 2 and alpha 3; set the run's rank"),
        (LoraSettings(3, 6.0), "has rank 3 and alpha 3, but this run trains rank 3 and alpha 6; set the run's rank"),
    ],
)
def test_a_lora_of_another_rank_is_refused(tiny: Tiny, tmp_path: Path, settings: LoraSettings, message: str) -> None:
    """A file of another rank or alpha is refused in one sentence, and nothing is loaded."""
    path = tmp_path / "lora.safetensors"
    save_lora(path, add_adapter(deepcopy(tiny.model), "generator", SETTINGS), SETTINGS, CARD)
    model = deepcopy(tiny.model)
    before = deepcopy(add_adapter(model, "generator", settings).state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_adapter(model, "generator", path)
    after = AdaptedModel(model, "generator").activate().state_dict()
    assert all(torch.equal(after[name.replace(".weight", ".generator.weight")], before[name]) for name in before)


def test_a_lora_without_a_layer_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """A file that lacks layers which the run trains is refused, and the layers are named."""
    path, model = tmp_path / "lora.safetensors", deepcopy(tiny.model)
    weights = add_adapter(model, "generator", SETTINGS)
    state = {name: tensor for name, tensor in weights.state_dict().items() if ".ffn.2." not in name}
    save_lora(path, state, SETTINGS, CARD)
    with pytest.raises(CheckpointError, match=r"missing blocks\.0\.ffn\.2, blocks\.1\.ffn\.2"):
        load_adapter(model, "generator", path)


def test_a_lora_on_a_quantised_base_has_the_gradient_of_the_dequantised_one() -> None:
    """On NVFP4 weights, flow and gradients equal those on a float base with the dequantised weights."""
    torch.manual_seed(0)
    config = WanConfig(dim=32, ffn_dim=32, num_heads=2, num_layers=2, freq_dim=16, text_dim=16, text_len=5, channels=4)
    quantised = CausalWan(config).requires_grad_(False)
    quantize_linears(quantised, "nvfp4")
    plain = deepcopy(quantised)

    def dequantised(_: str, layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, NVFP4Linear):
            return None
        linear = nn.Linear(layer.in_features, layer.out_features)
        linear.weight.data, linear.bias.data = layer.dequantized_weight(torch.float32).clone(), layer.bias.clone()  # type: ignore[union-attr]
        return linear

    replace_linears(plain, dequantised)
    gradients: list[dict[str, Tensor]] = []
    flows: list[Tensor] = []
    for model in (quantised, plain):
        weights = add_adapter(model, "generator", SETTINGS)
        add_adapter(model, "critic", SETTINGS)
        randomise(weights)
        flows.append(flow(AdaptedModel(model, "generator").activate()))
        flows[-1].square().mean().backward()
        gradients.append({name: p.grad for name, p in weights.named_parameters() if p.grad is not None})
    torch.testing.assert_close(flows[0], flows[1], rtol=1e-4, atol=1e-5)
    assert len(gradients[0]) == 40
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-6)
