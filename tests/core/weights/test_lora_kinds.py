"""LoRAs of every trainer act as their authors meant them, or are refused; the report counts what acts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.weights import CheckpointError, read_lora
from safetensors.torch import save_file
from torch import Tensor

from .lora_files import (
    HALVES,
    LINEARS,
    RANK,
    WEIGHTS,
    Tensors,
    assert_adds,
    beside,
    diffusers,
    flat,
    merged,
    plain,
    save,
    truth,
)

ALL = "20 of 20 layers"
FILE = "l.safetensors"


def compiled_inside(name: str) -> str:
    block, rest = name[: len("blocks.0")], name[len("blocks.0.") :]
    return f"{block}._checkpoint_wrapped_module.{rest}"


# Template of a tensor's name, given the layer and which half it is: (A, B), (down, up).
NAMES = {
    "compiled in front": lambda n, h: f"_orig_mod.{n}.lora_{'AB'[h]}.weight",
    "compiled, peft": lambda n, h: f"base_model.model._orig_mod.{n}.lora_{'AB'[h]}.weight",
    "checkpointed": lambda n, h: f"diffusion_model.{compiled_inside(n)}.lora_{'AB'[h]}.weight",
    "compiled blocks": lambda n, h: f"blocks.{n[7]}._orig_mod.{n[9:]}.lora_{'AB'[h]}.weight",
    "kohya with dots": lambda n, h: f"lora_unet_{n.replace('blocks.', 'blocks_')}.lora_{('down', 'up')[h]}.weight",
    "kohya, half dotted": lambda n, h: f"lora_unet_blocks.{n[7:]}.lora_{('down', 'up')[h]}.weight",
    "kohya, diffusers": lambda n, h: f"lora_unet_{flat(diffusers(n))}.lora_{('down', 'up')[h]}.weight",
    "kohya, transformer": lambda n, h: f"lora_transformer_{flat(diffusers(n))}.lora_{('down', 'up')[h]}.weight",
    "lycoris": lambda n, h: f"lycoris_{flat(n)}.lora_{('down', 'up')[h]}.weight",
    "lycoris, diffusers": lambda n, h: f"lycoris_{flat(diffusers(n))}.lora_{('down', 'up')[h]}.weight",
    "named adapter": lambda n, h: f"{n}.lora_{'AB'[h]}.my_style.weight",
    "adapter with dots": lambda n, h: f"transformer.{diffusers(n)}.lora_{'AB'[h]}.style.v1.2.weight",
    "another front": lambda n, h: f"student.dit.{n}.lora_{'AB'[h]}.default.weight",
    "deepspeed": lambda n, h: f"module.base_model.model._forward_module.{n}.lora_{'AB'[h]}.weight",
    "old diffusers": lambda n, h: f"transformer.{diffusers(n)}_lora.{('down', 'up')[h]}.weight",
    "linear layer": lambda n, h: f"{diffusers(n)}.lora_linear_layer.{('down', 'up')[h]}.weight",
    "pipeline": lambda n, h: f"pipe.dit.{n}.lora_{'AB'[h]}.default.weight",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_naming_is_the_same_lora(tmp_path: Path, name: str) -> None:
    """Names are read by what they end in; wrappers in front and within them mean nothing."""
    template = NAMES[name]
    path = save(tmp_path / FILE, lambda n, down, up: {template(n, 0): down, template(n, 1): up})
    assert assert_adds(path, truth()) == f"{ALL}; rank 4, alpha 4; unused: none"


def test_an_unknown_naming_is_called_that(tmp_path: Path) -> None:
    """Layers of the model's own shapes under foreign names are no LoRA for another model."""
    foreign = {f"layers.{i}.att.query.lora_A.weight": HALVES["blocks.0.self_attn.q"][0] for i in range(3)}
    foreign |= {f"layers.{i}.att.query.lora_B.weight": HALVES["blocks.0.self_attn.q"][1] for i in range(3)}
    save_file({n: v.clone() for n, v in foreign.items()}, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=r"naming.*not known.*layers\.0\.att\.query"):
        read_lora(tmp_path / FILE).coverage(LINEARS)


def test_unknown_endings_are_a_naming_too(tmp_path: Path) -> None:
    """A file without any known ending is no whole model, and its keys are shown."""
    save_file({f"{n}.adapter_in": down.clone() for n, (down, _) in HALVES.items()}, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=r"naming.*not known.*blocks\.0\.cross_attn\.k\.adapter_in"):
        read_lora(tmp_path / FILE)


def test_a_names_of_other_models_blocks_are_not_wans(tmp_path: Path) -> None:
    """`transformer_blocks.0.attn1.to_q` belongs to another model, though it ends as diffusers' Wan does."""
    path = save(tmp_path / FILE, lambda n, d, u: plain(f"transformer_{diffusers(n)}", d, u))
    with pytest.raises(CheckpointError):
        read_lora(path).coverage(LINEARS)


# DoRA


def dora(name: str, magnitude: Tensor, dim: int = 1, scale: float = 1.0) -> Tensor:
    """What a DoRA adds: magnitude · (W + BA) / |W + BA| - W, with the norm over `dim`."""
    weight = WEIGHTS[f"{name}.weight"]
    moved = weight + scale * HALVES[name][1] @ HALVES[name][0]
    return magnitude * moved / moved.norm(dim=dim, keepdim=True) - weight


@pytest.mark.parametrize(
    "ending", ["dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight", "lora_magnitude_vector.x.weight"]
)
@pytest.mark.parametrize("names", [str, diffusers], ids=["wan", "diffusers"])
def test_dora_is_applied(tmp_path: Path, ending: str, names: type) -> None:
    """W + BA is scaled to the magnitudes that the file has for each output."""
    size = {n: (WEIGHTS[f"{n}.weight"] * 1.5).norm(dim=1) for n in HALVES}
    path = save(
        tmp_path / FILE,
        lambda n, d, u: {
            f"transformer.{names(n)}.lora_A.weight": d,
            f"transformer.{names(n)}.lora_B.weight": u,
            f"transformer.{names(n)}.{ending}": size[n][:, None] if ending == "dora_scale" else size[n],
        },
    )
    text = assert_adds(path, {n: dora(n, size[n][:, None]) for n in HALVES})
    assert text.startswith(f"{ALL}; rank 4, alpha 4; DoRA")
    assert_adds(path, {n: 0.5 * dora(n, size[n][:, None]) for n in HALVES}, strength=0.5)


def test_dora_of_the_inputs(tmp_path: Path) -> None:
    """A magnitude for each input `[1, in]` scales columns."""
    size = {n: (WEIGHTS[f"{n}.weight"] * 1.5).norm(dim=0) for n in HALVES}
    path = save(tmp_path / FILE, lambda n, d, u: {**plain(n, d, u), f"diffusion_model.{n}.dora_scale": size[n][None]})
    assert_adds(path, {n: dora(n, size[n][None], dim=0) for n in HALVES})


@pytest.mark.parametrize(
    "metadata",
    [
        {"adapter_config": json.dumps({"lora_alpha": 4, "use_dora": True})},
        {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 4, "transformer.use_dora": True})},
        {"ss_network_args": json.dumps({"dora_wd": "True"})},
    ],
)
def test_dora_without_magnitudes_is_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    """A file that says it is DoRA and has no magnitudes would be half applied."""
    path = save(tmp_path / FILE, plain, metadata)
    with pytest.raises(CheckpointError, match="DoRA"):
        read_lora(path)


# Differences, biases, norms, convolutions


def test_biases_and_norms_are_added(tmp_path: Path) -> None:
    """`diff_b` and `diff` are added as they are, times the strength."""
    extra: Tensors = {f"diffusion_model.{n}.diff_b": torch.full((LINEARS[n][0],), 0.03) for n in HALVES}
    extra |= {f"diffusion_model.blocks.{i}.norm3.diff": torch.full((128,), 0.05) for i in (0, 1)}
    path = save(tmp_path / FILE, plain, extra=extra)
    assert "22 other tensors" in assert_adds(path, truth())
    _, biases, _ = beside(path, 0.5)
    assert all(torch.allclose(biases[n], torch.tensor(0.015), atol=1e-5) for n in HALVES)
    sums = merged(path, 0.5)
    assert torch.allclose(sums["blocks.1.norm3.weight"], torch.tensor(0.025), atol=1e-6)
    assert torch.allclose(sums["blocks.1.ffn.0.bias"], torch.tensor(0.015), atol=1e-6)
    save_file({n: v.clone() for n, v in extra.items()}, tmp_path / "only.safetensors")
    report = read_lora(tmp_path / "only.safetensors").coverage(LINEARS, {n: v.shape for n, v in WEIGHTS.items()})
    assert report.text() == "0 of 20 layers; 22 other tensors (biases, norms); unused: none"


def test_the_bias_of_lora_b_is_scaled_as_its_layer(tmp_path: Path) -> None:
    """As in peft: scale · (B A x + b)."""
    path = save(
        tmp_path / FILE,
        lambda n, d, u: {
            f"{n}.lora_A.weight": d,
            f"{n}.lora_B.weight": u,
            f"{n}.lora_B.bias": torch.full((len(u),), 0.04),
        },
        {"lora_alpha": "8"},
    )
    assert_adds(path, truth(2.0))
    assert torch.allclose(beside(path)[1]["blocks.0.ffn.2"], torch.tensor(0.08), atol=1e-5)


def test_norms_of_lycoris_and_modulations(tmp_path: Path) -> None:
    """`w_norm` and `b_norm` are differences by other names; a modulation has no `.weight`."""
    one = torch.ones(128)
    extra: Tensors = {"lycoris_blocks_0_norm3.w_norm": one * 0.1, "lycoris_blocks_0_norm3.b_norm": one * 0.2}
    extra |= {"diffusion_model.blocks.0.modulation.diff": torch.full((1, 6, 128), 0.3)}
    extra |= {"diffusion_model.head.modulation.diff": torch.full((1, 2, 128), 0.4)}
    sums = merged(save(tmp_path / FILE, plain, extra=extra))
    for name, value in {"norm3.weight": 0.1, "norm3.bias": 0.2, "modulation": 0.3}.items():
        assert torch.allclose(sums[f"blocks.0.{name}"], torch.tensor(value), atol=1e-6)
    assert torch.allclose(sums["head.modulation"], torch.tensor(0.4), atol=1e-6)


def test_a_whole_layer_and_lora_layers(tmp_path: Path) -> None:
    """`diff` of a linear layer counts as that layer."""
    first = "blocks.0.self_attn.q"
    path = save(
        tmp_path / FILE,
        lambda n, d, u: {f"diffusion_model.{n}.diff": torch.full((128, 128), 0.1)} if n == first else plain(n, d, u),
    )
    assert assert_adds(path, {**truth(), first: torch.full((128, 128), 0.1)}).startswith(f"{ALL}; rank 4, alpha 4")


@pytest.mark.parametrize("kernel", [(1, 1), (1,), (1, 1, 1)])
def test_convolutions_of_one_pixel_are_linear_layers(tmp_path: Path, kernel: tuple[int, ...]) -> None:
    """Trainers that wrap every layer as a convolution mean the same product."""
    path = save(tmp_path / FILE, lambda n, d, u: plain(n, d.view(*d.shape, *kernel), u.view(*u.shape, *kernel)))
    assert assert_adds(path, truth()).startswith(ALL)


def test_the_patch_embedding_has_a_lora(tmp_path: Path) -> None:
    """A 3D convolution is changed by the product of its flattened halves."""
    shape = WEIGHTS["patch_embedding.weight"].shape
    down, up = torch.randn(RANK, *shape[1:]), torch.randn(shape[0], RANK, 1, 1, 1)
    path = save(tmp_path / FILE, plain, {"lora_alpha": "8"}, extra=plain("patch_embedding", down, up))
    change = merged(path)["patch_embedding.weight"]
    torch.testing.assert_close(change, (2 * up.flatten(1) @ down.flatten(1)).view(shape), rtol=1e-4, atol=1e-4)
    assert assert_adds(path, truth(2.0)).startswith(ALL)


# LoHa and LoKr


def test_loha(tmp_path: Path) -> None:
    """alpha / rank · (w1_a w1_b) ∘ (w2_a w2_b), under kohya's and diffusers' names."""
    torch.manual_seed(2)
    parts = {
        n: {"w1_a": torch.randn(o, 4), "w1_b": torch.randn(4, i), "w2_a": torch.randn(o, 4), "w2_b": torch.randn(4, i)}
        for n, (o, i) in ((n, LINEARS[n]) for n in HALVES)
    }
    tensors = {f"lora_unet_{flat(diffusers(n))}.hada_{k}": v for n, p in parts.items() for k, v in p.items()}
    tensors |= {f"lora_unet_{flat(diffusers(n))}.alpha": torch.tensor(2.0, dtype=torch.float16) for n in parts}
    save_file(tensors, tmp_path / FILE)
    want = {n: 0.5 * (p["w1_a"] @ p["w1_b"]) * (p["w2_a"] @ p["w2_b"]) for n, p in parts.items()}
    assert assert_adds(tmp_path / FILE, want).startswith(ALL)


@pytest.mark.parametrize("form", ["full", "low rank w2", "low rank both"])
def test_lokr(tmp_path: Path, form: str) -> None:
    """w1 ⊗ w2; alpha / rank only where one of them is a product."""
    torch.manual_seed(3)
    tensors: Tensors = {}
    want: Tensors = {}
    for n, (o, i) in ((n, LINEARS[n]) for n in HALVES):
        w1, (a, b) = torch.randn(8, 8), (torch.randn(o // 8, 2), torch.randn(2, i // 8))
        x, y = torch.randn(8, 2), torch.randn(2, 8)
        parts = {"lokr_w1": w1, "lokr_w2": a @ b, "alpha": torch.tensor(1.0)}
        want[n] = torch.kron(w1, a @ b)
        if form != "full":
            parts = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}
            want[n] = 0.5 * torch.kron(w1, a @ b)
        if form == "low rank both":
            parts = {"lokr_w1_a": x, "lokr_w1_b": y, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(1.0)}
            want[n] = 0.5 * torch.kron(x @ y, a @ b)
        tensors |= {f"diffusion_model.{n}.{k}": v.contiguous() for k, v in parts.items()}
    save_file(tensors, tmp_path / FILE)
    assert assert_adds(tmp_path / FILE, want).startswith(ALL)


def test_lokr_and_lora_in_one_file(tmp_path: Path) -> None:
    """Every layer has its own kind."""
    first, w1, w2 = "blocks.0.self_attn.q", torch.randn(8, 8), torch.randn(16, 16)
    path = save(
        tmp_path / FILE,
        lambda n, d, u: (
            {f"diffusion_model.{n}.lokr_w1": w1, f"diffusion_model.{n}.lokr_w2": w2} if n == first else plain(n, d, u)
        ),
    )
    assert assert_adds(path, {**truth(), first: torch.kron(w1, w2)}).startswith(ALL)


@pytest.mark.parametrize("ending", ["hada_t1", "lokr_t2", "oft_blocks", "oft_diag", "a1.weight", "lora_mid.weight"])
def test_what_is_not_computed_here_is_refused_by_name(tmp_path: Path, ending: str) -> None:
    """OFT, GLoRA and Tucker forms change a layer in other ways; they are never passed over."""
    extra = {f"diffusion_model.blocks.0.self_attn.q.{ending}": torch.ones(4, 4)}
    path = save(tmp_path / FILE, plain, extra=extra)
    with pytest.raises(CheckpointError, match=r"Load LoRA"):
        read_lora(path)


# Alpha


def attention_names(n: str, d: Tensor, u: Tensor) -> Tensors:
    return {f"transformer.{diffusers(n)}.lora_A.weight": d, f"transformer.{diffusers(n)}.lora_B.weight": u}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ({"to_q": 32}, lambda n: n.endswith("attn.q")),
        ({r"blocks\.[0]\..*": 32}, lambda n: n.startswith("blocks.0")),
        ({r"^blocks\.1\.attn1\.to_k": 32}, lambda n: n == "blocks.1.self_attn.k"),
        ({"attn2.to_out.0": 32}, lambda n: n.endswith("cross_attn.o")),
        ({r".*\.ffn\.net\..*": 32}, lambda n: ".ffn." in n),
        ({"to_q|to_k": 32}, lambda n: n.endswith(("attn.q", "attn.k"))),
        ({"transformer.blocks.0.attn1.to_v": 32}, lambda n: n == "blocks.0.self_attn.v"),
    ],
)
@pytest.mark.parametrize("beside_file", [False, True], ids=["metadata", "adapter_config.json"])
def test_alpha_patterns_as_peft_means_them(
    tmp_path: Path, pattern: dict[str, float], matches: object, beside_file: bool
) -> None:
    """A key of `alpha_pattern` is a regular expression that matches the end of the layer's own name."""
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 2, "alpha_pattern": pattern, "rank_pattern": {"to_q": 4}}
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in config.items()})}
    path = save(tmp_path / "adapter_model.safetensors", attention_names, None if beside_file else metadata)
    if beside_file:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert callable(matches)
    assert_adds(path, {n: v * (8 if matches(n) else 0.5) for n, v in truth().items()})


def test_a_pattern_that_is_no_regular_expression_is_named(tmp_path: Path) -> None:
    """A key that cannot be read is an error, not another scale."""
    config = {"lora_alpha": 8, "alpha_pattern": {"to_q(": 32}}
    path = save(tmp_path / FILE, attention_names, {"adapter_config": json.dumps(config)})
    with pytest.raises(CheckpointError, match=r"alpha_pattern.*to_q\("):
        read_lora(path)


def test_rslora(tmp_path: Path) -> None:
    """alpha / sqrt(rank), as peft scales with `use_rslora`; a layer's own alpha stays what it is."""
    config = {"lora_alpha": 8, "use_rslora": True}
    path = save(tmp_path / FILE, attention_names, {"adapter_config": json.dumps(config)})
    assert_adds(path, truth(4.0))


def test_alphas_of_half_precision_on_some_layers(tmp_path: Path) -> None:
    """A layer's own alpha counts for it alone."""
    extra = {f"diffusion_model.{n}.alpha": torch.tensor(1.0).half() for n in HALVES if n.endswith(".q")}
    path = save(tmp_path / FILE, plain, extra=extra)
    assert_adds(path, {n: v * (0.25 if n.endswith(".q") else 1) for n, v in truth().items()})


def test_a_peft_folder(tmp_path: Path) -> None:
    """The folder that peft saves is named as it is; the configuration beside the weights has the alpha."""
    save(tmp_path / "adapter_model.safetensors", attention_names, {"format": "pt"})
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16}))
    assert_adds(tmp_path, truth(4.0))
    assert_adds(tmp_path / "adapter_model.safetensors", truth(4.0))


def test_a_configuration_of_another_file_is_not_used(tmp_path: Path) -> None:
    """In a folder of many LoRAs, an adapter_config.json belongs to adapter_model only."""
    save(tmp_path / "adapter_model.safetensors", attention_names)
    path = save(tmp_path / "style.safetensors", plain)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16}))
    assert_adds(path, truth())


# Damage and half a LoRA


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_what_is_not_finite_is_named(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    """The LoRA and the tensor are named when the file is read, before a film is black."""
    if dtype == torch.float8_e4m3fn and value == float("inf"):
        value = float("nan")  # E4M3 has no infinity
    broken = HALVES["blocks.0.self_attn.q"][1].clone()
    broken[0, 0] = value

    def keys(n: str, d: Tensor, u: Tensor) -> Tensors:
        return {k: v.to(dtype) for k, v in plain(n, d, broken if n == "blocks.0.self_attn.q" else u).items()}

    path = save(tmp_path / FILE, keys)
    with pytest.raises(CheckpointError, match=r"l\.safetensors.*blocks\.0\.self_attn\.q\.lora_up.*NaN or infinity"):
        read_lora(path)


def test_halves_without_partners_are_counted(tmp_path: Path) -> None:
    """The report says how many of the file's layers do not act, and why."""
    lone = list(HALVES)[:8]
    path = save(tmp_path / FILE, lambda n, d, u: dict(list(plain(n, d, u).items())[: 1 if n in lone else 2]))
    text = assert_adds(path, {n: v for n, v in truth().items() if n not in lone})
    assert text.startswith("12 of 20 layers; rank 4, alpha 4; 8 of the file's 20 layers not applied: half missing (")


MAGNITUDE = torch.ones(128, 1)
LOHA = {f"hada_w{n}_{side}": torch.ones(s) for n in (1, 2) for side, s in (("a", (128, RANK)), ("b", (RANK, 128)))}
LOKR = {"lokr_w1": torch.ones(8, 8), "lokr_w2_a": torch.ones(16, RANK), "lokr_w2_b": torch.ones(RANK, 16)}


def with_parts(path: Path, layer: str, parts: Tensors) -> Path:
    """A LoRA of all layers but one, which has these parts."""
    others = {k: v for n, (d, u) in HALVES.items() if n != layer for k, v in plain(n, d, u).items()}
    save_file({**others, **{f"diffusion_model.{layer}.{part}": tensor for part, tensor in parts.items()}}, path)
    return path


@pytest.mark.parametrize("parts", [LOHA, LOKR, {"diff": torch.ones(128, 128)}], ids=["LoHa", "LoKr", "difference"])
def test_magnitudes_beside_other_changes_are_refused(tmp_path: Path, parts: Tensors) -> None:
    """A DoRA of anything but a LoRA is not computed here, and never applied without its magnitudes."""
    path = with_parts(tmp_path / FILE, "blocks.0.self_attn.q", parts)
    read_lora(path)
    with_parts(path, "blocks.0.self_attn.q", {**parts, "dora_scale": MAGNITUDE})
    with pytest.raises(CheckpointError, match=r"not computed here \(.*blocks\.0\.self_attn\.q\.dora_scale"):
        read_lora(path)


@pytest.mark.parametrize("part", ["dora_scale", "lora_B.bias"])
def test_parts_without_halves_are_counted(tmp_path: Path, part: str) -> None:
    """Magnitudes and biases of a LoRA whose halves are missing do not act, and the report says so."""
    layer = "blocks.0.self_attn.q"
    path = with_parts(tmp_path / FILE, layer, {part: MAGNITUDE})
    text = assert_adds(path, {n: v for n, v in truth().items() if n != layer})
    assert f"1 of the file's 20 layers not applied: half missing ({layer})" in text


def test_a_dora_of_a_convolution_is_counted(tmp_path: Path) -> None:
    """The magnitudes of a convolution are not computed here: it is not applied without them, and said."""
    down, up = torch.ones(RANK, 48, 1, 2, 2), torch.ones(128, RANK, 1, 1, 1)
    parts = {"lora_down.weight": down, "lora_up.weight": up, "dora_scale": MAGNITUDE}
    lora = read_lora(with_parts(tmp_path / FILE, "patch_embedding", parts))
    assert not lora.diffs
    assert lora.skipped == {"patch_embedding": "a DoRA of a convolution"}


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({**LOHA, "hada_w2_b": torch.ones(RANK - 1, 128)}, r"hada_w2_a \[128, 4\] and hada_w2_b \[3, 128\]"),
        ({**LOHA, "hada_w2_a": torch.ones(64, RANK)}, r"\[128, 128\].*\[64, 128\]"),
        ({**LOHA, "hada_w1_a": torch.ones(128, 0), "hada_w1_b": torch.ones(0, 128)}, r"hada_w1_a \[128, 0\]"),
        ({**LOKR, "lokr_w2_b": torch.ones(RANK + 1, 16)}, r"lokr_w2_a \[16, 4\] and lokr_w2_b \[5, 16\]"),
        ({**LOKR, "lokr_w1": torch.ones(8)}, r"lokr_w1 \[8\]"),
    ],
    ids=["LoHa ranks", "LoHa sizes", "LoHa of rank 0", "LoKr ranks", "LoKr of one axis"],
)
def test_factors_that_do_not_fit_are_refused(tmp_path: Path, parts: Tensors, fault: str) -> None:
    """The factors of LoHa and LoKr fit together, or the file is refused before it is applied."""
    path = with_parts(tmp_path / FILE, "blocks.0.self_attn.q", parts)
    with pytest.raises(CheckpointError, match=f"of 'blocks.0.self_attn.q' do not fit together: .*{fault}"):
        read_lora(path)


def test_a_layer_without_rank_is_refused(tmp_path: Path) -> None:
    """Halves of rank 0 belong to a damaged file."""
    path = save(tmp_path / FILE, lambda n, d, u: plain(n, d[:0], u[:, :0]))
    with pytest.raises(CheckpointError, match="do not fit together"):
        read_lora(path)


def test_fp8_halves_are_floats(tmp_path: Path) -> None:
    """A LoRA that was cast to fp8 is read as the numbers that it has."""
    path = save(tmp_path / FILE, lambda n, d, u: {k: v.to(torch.float8_e4m3fn) for k, v in plain(n, d, u).items()})
    rounded = {n: tuple(h.to(torch.float8_e4m3fn).float() for h in pair) for n, pair in HALVES.items()}
    assert_adds(path, {n: up @ down for n, (down, up) in rounded.items()})


def test_integer_halves_do_not_count(tmp_path: Path) -> None:
    """Quantised halves need scales that are not read: such layers are not applied, and said."""
    first = "blocks.0.self_attn.q"
    path = save(
        tmp_path / FILE,
        lambda n, d, u: {k: v.to(torch.uint8) if n == first else v for k, v in plain(n, d, u).items()},
    )
    text = assert_adds(path, {n: v for n, v in truth().items() if n != first})
    assert "1 of the file's 20 layers not applied: no floats (blocks.0.self_attn.q)" in text


def test_two_prefixes_in_one_file(tmp_path: Path) -> None:
    """Half of the layers under one prefix and half under another are one LoRA; a layer under both is refused."""
    names = list(HALVES)
    fronts = {n: "transformer." if names.index(n) % 2 else "diffusion_model." for n in names}
    path = save(
        tmp_path / FILE, lambda n, d, u: {f"{fronts[n]}{n}.lora_A.weight": d, f"{fronts[n]}{n}.lora_B.weight": u}
    )
    assert assert_adds(path, truth()).startswith(ALL)
