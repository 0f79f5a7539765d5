"""A LoRA of any trainer becomes the same changes of the same layers, or an error that says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.weights import CheckpointError, inspect_checkpoint, load_checkpoint, read_lora
from safetensors.torch import save_file
from torch import Tensor

from .lora_files import diffusers

CONFIG = WanConfig(dim=128, ffn_dim=64, num_heads=1, num_layers=2, freq_dim=32, text_dim=16, text_len=512)
RANK = 4

Tensors = dict[str, Tensor]
Halves = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def weights() -> Tensors:
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in CausalWan(CONFIG).state_dict().items()}


@pytest.fixture(scope="module")
def linears(weights: Tensors) -> dict[str, tuple[int, ...]]:
    return {
        n.removesuffix(".weight"): tuple(w.shape) for n, w in weights.items() if n.endswith("weight") and w.ndim == 2
    }


@pytest.fixture(scope="module")
def halves(linears: dict[str, tuple[int, ...]]) -> Halves:
    """(down, up) of the twenty linear layers of the blocks."""
    torch.manual_seed(1)
    blocks = {name: shape for name, shape in linears.items() if name.startswith("blocks.")}
    return {name: (torch.randn(RANK, columns), torch.randn(rows, RANK)) for name, (rows, columns) in blocks.items()}


def named(halves: Halves, template: str, down: str, up: str) -> Tensors:
    """The halves under `template` with a layer's name in it, and the endings `down` and `up`."""
    tensors: Tensors = {}
    for name, pair in halves.items():
        layer = template.format(name) if "{0}" in template else template.format(flat=name.replace(".", "_"))
        tensors |= {layer + down: pair[0], layer + up: pair[1]}
    return tensors


@pytest.mark.parametrize(
    ("template", "down", "up"),
    [
        ("base_model.model.{0}", ".lora_A.weight", ".lora_B.weight"),
        ("base_model.model.{0}", ".lora_A.default.weight", ".lora_B.default.weight"),
        ("base_model.model._fsdp_wrapped_module.{0}", ".lora_A.weight", ".lora_B.weight"),
        ("diffusion_model.{0}", ".lora_A.weight", ".lora_B.weight"),
        ("diffusion_model.{0}", ".lora_down.weight", ".lora_up.weight"),
        ("transformer.{0}", ".lora.down.weight", ".lora.up.weight"),
        ("lora_unet_{flat}", ".lora_down.weight", ".lora_up.weight"),
        ("lora_unet__{flat}", ".lora_down.weight", ".lora_up.weight"),
        ("{0}", ".lora_A", ".lora_B"),
    ],
)
def test_every_way_to_name_layers_is_the_same_lora(
    tmp_path: Path, halves: Halves, template: str, down: str, up: str
) -> None:
    """Layers have Wan's own names, whoever wrote the file; without a word on alpha the scale is 1."""
    save_file(named(halves, template, down, up), tmp_path / "l.safetensors")
    lora = read_lora(tmp_path / "l.safetensors")
    assert lora.unused == ()
    assert lora.layers.keys() == halves.keys()
    for name, layer in lora.layers.items():
        assert torch.equal(layer.down, halves[name][0])
        assert torch.equal(layer.up, halves[name][1])
        assert layer.alpha == RANK


def test_names_of_diffusers_are_translated(tmp_path: Path, halves: Halves) -> None:
    """A LoRA trained in diffusers, whose Wan has other names, changes the same layers."""
    theirs = {diffusers(name): pair for name, pair in halves.items()}
    save_file(named(theirs, "transformer.{0}", ".lora_A.weight", ".lora_B.weight"), tmp_path / "l.safetensors")
    assert read_lora(tmp_path / "l.safetensors").layers.keys() == halves.keys()


def test_the_official_pt_gives_the_generator(tmp_path: Path, halves: Halves) -> None:
    """Of LongLive's lora_checkpoint.pt only `generator_lora` is read; the critic is used in training only."""
    generator = named(halves, "base_model.model.{0}", ".lora_A.weight", ".lora_B.weight")
    critic = {name: torch.zeros_like(value) for name, value in generator.items()}
    torch.save({"critic_lora": critic, "generator_lora": generator, "step": 7}, tmp_path / "lora.pt")
    lora = read_lora(tmp_path / "lora.pt")
    assert lora.layers.keys() == halves.keys()
    assert torch.equal(lora.layers["blocks.1.ffn.0"].up, halves["blocks.1.ffn.0"][1])
    with pytest.raises(CheckpointError, match="a LoRA, not a whole model"):
        load_checkpoint(tmp_path / "lora.pt")


@pytest.mark.parametrize(
    ("metadata", "alpha"),
    [
        ({"lora_alpha": "8"}, 8.0),
        ({"alpha": "2.5"}, 2.5),
        ({"ss_network_alpha": "1"}, 1.0),
        ({"transformer.lora_alpha": "16"}, 16.0),
        ({"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 64, "transformer.r": 4})}, 64.0),
        ({"adapter_config": json.dumps({"lora_alpha": 32, "r": 4, "alpha_pattern": {}})}, 32.0),
        ({"ss_network_alpha": "None", "config": "of another program"}, float(RANK)),
        ({}, float(RANK)),
    ],
)
def test_alpha_is_read_from_metadata(tmp_path: Path, halves: Halves, metadata: dict[str, str], alpha: float) -> None:
    """Without tensors for it, alpha is what the trainer wrote into the header; without that, the rank."""
    save_file(named(halves, "{0}", ".lora_A.weight", ".lora_B.weight"), tmp_path / "l.safetensors", metadata)
    assert {layer.alpha for layer in read_lora(tmp_path / "l.safetensors").layers.values()} == {alpha}


def test_a_layers_own_alpha_comes_first(tmp_path: Path, halves: Halves) -> None:
    """A layer's `.alpha`, then peft's pattern for the layer, then the alpha of the whole file."""
    tensors = named(halves, "lora_unet_{flat}", ".lora_down.weight", ".lora_up.weight")
    tensors["lora_unet_blocks_0_ffn_0.alpha"] = torch.tensor(3.0)
    config = {"lora_alpha": 8, "alpha_pattern": {"blocks.1.self_attn.q": 5, "ffn.0": 6}}
    save_file(tensors, tmp_path / "l.safetensors", {"adapter_config": json.dumps(config)})
    layers = read_lora(tmp_path / "l.safetensors").layers
    names = ("blocks.0.ffn.0", "blocks.1.ffn.0", "blocks.1.self_attn.q", "blocks.0.self_attn.q")
    assert [layers[name].alpha for name in names] == [3.0, 6.0, 5.0, 8.0]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("q", {"self_attn.q", "cross_attn.q"}),
        ("self_attn.q", {"self_attn.q"}),
        ("attn.q", set()),
        ("self_attn", set()),
        ("self_attn_q", set()),
    ],
)
def test_an_alpha_pattern_matches_whole_parts_of_a_name(
    tmp_path: Path, halves: Halves, pattern: str, matched: set[str]
) -> None:
    """As in peft: `q` is every layer named q, but `attn.q` is not the end of `self_attn.q`."""
    config = {"lora_alpha": 8, "alpha_pattern": {pattern: 5}}
    tensors = named(halves, "{0}", ".lora_A.weight", ".lora_B.weight")
    save_file(tensors, tmp_path / "l.safetensors", {"adapter_config": json.dumps(config)})
    layers = read_lora(tmp_path / "l.safetensors").layers
    assert {name for name, layer in layers.items() if layer.alpha == 5} == {
        f"blocks.{i}.{n}" for i in (0, 1) for n in matched
    }


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"lora_alpha": "loud"}, "alpha 'loud', which is not a finite number"),
        ({"lora_alpha": "nan"}, "not a finite number"),
    ],
)
def test_a_scale_that_is_not_understood_is_an_error(
    tmp_path: Path, halves: Halves, metadata: dict[str, str], message: str
) -> None:
    """A wrong strength would not be seen for what it is."""
    save_file(named(halves, "{0}", ".lora_A.weight", ".lora_B.weight"), tmp_path / "l.safetensors", metadata)
    with pytest.raises(CheckpointError, match=message):
        read_lora(tmp_path / "l.safetensors")


def test_coverage_counts_applied_missing_and_unused(
    tmp_path: Path, halves: Halves, linears: dict[str, tuple[int, ...]]
) -> None:
    """Every layer of the model's blocks and every tensor of the file is in exactly one of the three."""
    tensors = named(halves, "diffusion_model.{0}", ".lora_A.weight", ".lora_B.weight")
    save_file(tensors, tmp_path / "all.safetensors")
    report = read_lora(tmp_path / "all.safetensors").coverage(linears)
    assert report.text() == "20 of 20 layers; rank 4, alpha 4; unused: none"

    for half in ("A", "B"):
        del tensors[f"diffusion_model.blocks.0.self_attn.q.lora_{half}.weight"]
        tensors[f"diffusion_model.blocks.0.cross_attn.k_img.lora_{half}.weight"] = torch.zeros(RANK, RANK)
    tensors["diffusion_model.blocks.0.ffn.0.lora_A.weight"] = torch.zeros(2, 128)
    tensors["diffusion_model.blocks.0.ffn.0.lora_B.weight"] = torch.zeros(64, 2)
    tensors["diffusion_model.blocks.0.norm3.diff"] = torch.zeros(128)
    tensors["diffusion_model.blocks.1.ffn.0.alpha"] = torch.tensor(1.0)
    del tensors["diffusion_model.blocks.1.ffn.2.lora_B.weight"]
    save_file(tensors, tmp_path / "some.safetensors")
    report = read_lora(tmp_path / "some.safetensors").coverage(linears)
    assert set(report.applied) == halves.keys() - {"blocks.0.self_attn.q", "blocks.1.ffn.2"}
    assert set(report.missing) == {"blocks.0.self_attn.q", "blocks.1.ffn.2"}
    assert set(report.unused) == {
        "blocks.0.cross_attn.k_img",
        "blocks.0.norm3.weight",  # the shapes of the model's other tensors were not given
    }
    assert report.skipped == {"blocks.1.ffn.2": "half missing"}
    assert report.text() == (
        "18 of 20 layers; rank 2 to 4, alpha 1 to 4; 1 of the file's 19 layers not applied: half missing "
        "(blocks.1.ffn.2); unchanged: blocks.0.self_attn.q; unused: blocks.0.cross_attn.k_img, blocks.0.norm3.weight"
    )


def test_coverage_takes_a_checkpoints_linears(tmp_path: Path, weights: Tensors, halves: Halves) -> None:
    """The layers of an inspected file are the names that a LoRA is compared with."""
    save_file(weights, tmp_path / "m.safetensors")
    save_file(named(halves, "{0}", ".lora_A.weight", ".lora_B.weight"), tmp_path / "l.safetensors")
    report = read_lora(tmp_path / "l.safetensors").coverage(inspect_checkpoint(tmp_path / "m.safetensors").linears)
    assert (len(report.applied), report.missing, report.unused) == (20, (), ())


def test_a_lora_of_another_width_names_both_models(tmp_path: Path) -> None:
    """A LoRA for Wan 14B has the same names; only its shapes tell."""
    layer = "diffusion_model.blocks.0.self_attn.q"
    save_file(
        {f"{layer}.lora_A.weight": torch.zeros(1, 5120), f"{layer}.lora_B.weight": torch.zeros(5120, 1)},
        tmp_path / "l.safetensors",
    )
    lora = read_lora(tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=r"width 5120 \(Wan 14B\); this model's width is 3072 \(Wan2\.2 TI2V 5B"):
        lora.coverage({"blocks.0.self_attn.q": (3072, 3072)})


def test_one_layer_of_another_shape_is_an_error(
    tmp_path: Path, halves: Halves, linears: dict[str, tuple[int, ...]]
) -> None:
    """The layer is listed with both shapes, though all others fit."""
    changed = {**halves, "blocks.0.ffn.0": (torch.zeros(RANK, 128), torch.zeros(65, RANK))}
    save_file(named(changed, "{0}", ".lora_A.weight", ".lora_B.weight"), tmp_path / "l.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.0\.ffn\.0 \[65, 128\] instead of \[64, 128\]"):
        read_lora(tmp_path / "l.safetensors").coverage(linears)


def test_a_lora_that_fits_nothing_is_an_error(tmp_path: Path, linears: dict[str, tuple[int, ...]]) -> None:
    """A LoRA for another kind of model never passes as one that changes nothing."""
    layer = "lora_unet_single_blocks_0_linear1"
    save_file(
        {f"{layer}.lora_down.weight": torch.zeros(1, 8), f"{layer}.lora_up.weight": torch.zeros(8, 1)},
        tmp_path / "l.safetensors",
    )
    message = rf"l\.safetensors fits none of the model's {len(linears)} layers.*first names: {layer}"
    with pytest.raises(CheckpointError, match=message):
        read_lora(tmp_path / "l.safetensors").coverage(linears)


def test_what_is_no_lora_is_an_error(tmp_path: Path, weights: Tensors, halves: Halves) -> None:
    """A whole model, halves of different ranks, and a layer under two names."""
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no LoRA.*model loader"):
        read_lora(tmp_path / "model.safetensors")
    broken = {"blocks.0.ffn.0": (torch.zeros(4, 128), torch.zeros(64, 3))}
    save_file(named(broken, "{0}", ".lora_A.weight", ".lora_B.weight"), tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=r"halves of 'blocks\.0\.ffn\.0' do not fit together"):
        read_lora(tmp_path / "broken.safetensors")
    twice = named(halves, "{0}", ".lora_A.weight", ".lora_B.weight")
    twice |= named(halves, "transformer.{0}", ".lora_A.weight", ".lora_B.weight")
    save_file({name: value.clone() for name, value in twice.items()}, tmp_path / "twice.safetensors")
    with pytest.raises(CheckpointError, match="holds layers twice"):
        read_lora(tmp_path / "twice.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_merging_is_one_rounding_of_the_exact_sum(
    tmp_path: Path, weights: Tensors, halves: Halves, dtype: torch.dtype
) -> None:
    """W + strength · alpha / rank · up @ down in float32, then W's dtype; nothing else changes, and W itself stays."""
    tensors = named(halves, "{0}", ".lora_A.weight", ".lora_B.weight")
    save_file({n: v.bfloat16() for n, v in tensors.items()}, tmp_path / "l.safetensors", {"lora_alpha": "8"})
    state = {name: value.to(dtype) for name, value in weights.items()}
    before = {name: value.clone() for name, value in state.items()}
    merged = read_lora(tmp_path / "l.safetensors").merge(state, strength=0.5)
    assert list(merged) == list(state)
    for name, value in merged.items():
        layer = name.removesuffix(".weight")
        assert torch.equal(state[name], before[name])
        if layer not in halves:
            assert value is state[name]
            continue
        down, up = (half.bfloat16().double() for half in halves[layer])
        exact = before[name].double() + 0.5 * 8 / RANK * up @ down
        assert value.dtype == dtype
        torch.testing.assert_close(value.double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_a_lora_beside_the_layers_is_the_merged_one(tmp_path: Path, weights: Tensors, halves: Halves) -> None:
    """The same scale, strength · alpha / rank, whichever way a LoRA is applied."""
    tensors = named(halves, "{0}", ".lora_A.weight", ".lora_B.weight")
    save_file(tensors, tmp_path / "l.safetensors", {"lora_alpha": "8"})
    lora, model = read_lora(tmp_path / "l.safetensors"), CausalWan(CONFIG).requires_grad_(False)
    model.load_state_dict(weights)
    merged = lora.merge(weights, strength=0.5)
    assert set(lora.add_bypass(model, strength=0.5).applied) == halves.keys()
    for name, (down, _) in halves.items():
        x = torch.randn(3, down.shape[1])
        expected = torch.nn.functional.linear(x, merged[f"{name}.weight"], weights[f"{name}.bias"])
        torch.testing.assert_close(model.get_submodule(name)(x), expected, rtol=1e-4, atol=1e-3)


def test_quantised_weights_are_not_merged(tmp_path: Path, weights: Tensors, halves: Halves) -> None:
    """Rounding again would cost more than the LoRA changes."""
    save_file(named(halves, "{0}", ".lora_A.weight", ".lora_B.weight"), tmp_path / "l.safetensors")
    state = {**weights, "blocks.0.ffn.0.weight": weights["blocks.0.ffn.0.weight"].to(torch.float8_e4m3fn)}
    with pytest.raises(CheckpointError, match=r"quantised weights \(blocks\.0\.ffn\.0.*as a bypass"):
        read_lora(tmp_path / "l.safetensors").merge(state, 1.0)


def test_comfy_names_read_back_as_the_same_lora(tmp_path: Path, halves: Halves) -> None:
    """What core's loader is given is a LoRA file of its own: names, halves and alpha are the same."""
    save_file(
        named(halves, "lora_unet_{flat}", ".lora_down.weight", ".lora_up.weight"),
        tmp_path / "l.safetensors",
        {"lora_alpha": "2.5"},
    )
    lora = read_lora(tmp_path / "l.safetensors")
    tensors = lora.comfy_tensors()
    assert tensors["diffusion_model.blocks.0.self_attn.q.alpha"].item() == 2.5
    assert tensors["diffusion_model.blocks.0.ffn.0.lora_A.weight"].shape == (RANK, 128)
    save_file(tensors, tmp_path / "comfy.safetensors")
    again = read_lora(tmp_path / "comfy.safetensors")
    assert again.layers.keys() == lora.layers.keys()
    for name, layer in again.layers.items():
        assert layer.alpha == 2.5
        assert torch.equal(layer.up, lora.layers[name].up)
