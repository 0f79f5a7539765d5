"""A checkpoint is either exactly the model, or an error that says which file, what is wrong and what to do."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.model.linears import FP8Linear, NVFP4Linear
from longlive.longlive_core.weights import CheckpointError, inspect_checkpoint, load_checkpoint
from safetensors.torch import save_file
from torch import Tensor

CONFIG = WanConfig(dim=128, ffn_dim=64, num_heads=1, num_layers=2, freq_dim=32, text_dim=16, text_len=512)
PREFIXES = ["", "model.", "diffusion_model.", "model.diffusion_model.", "generator.", "generator.model."]

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Tensors:
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in CausalWan(CONFIG).state_dict().items()}


@pytest.fixture
def saved(tmp_path: Path, weights: Tensors) -> Path:
    save_file(weights, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def header_only(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "BF16") -> Path:
    """A file that claims these tensors and ends after its header: reading any of them would fail."""
    header = {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_float_weights_load_under_any_prefix(tmp_path: Path, weights: Tensors, prefix: str, dtype: torch.dtype) -> None:
    """Float weights of each dtype load under each prefix, in the dtype of the file and with the same values."""
    save_file({prefix + k: v.to(dtype) for k, v in weights.items()}, tmp_path / "m.safetensors")
    model = load_checkpoint(tmp_path / "m.safetensors")
    assert model.config == CONFIG
    assert model.dtype == dtype
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name].to(dtype)), name


def test_dtype_is_converted_and_gradients_are_off(saved: Path) -> None:
    """`dtype` converts all weights; the model is in eval mode and its weights require no gradients."""
    model = load_checkpoint(saved, dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_metadata_tells_what_shapes_cannot(tmp_path: Path, weights: Tensors) -> None:
    """Heads and `text_len` leave no trace in shapes and are read from the metadata."""
    config = WanConfig(**{**asdict(CONFIG), "num_heads": 4, "text_len": 20})
    save_file(weights, tmp_path / "m.safetensors", {"config": json.dumps(asdict(config))})
    assert load_checkpoint(tmp_path / "m.safetensors").config == config


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"generator": w},
        lambda w: {"generator_ema": {f"model._fsdp_wrapped_module.{k}": v for k, v in w.items()}, "step": 3},
        lambda w: {"generator": {"model": w}},
    ],
    ids=["raw", "generator", "fsdp", "nested"],
)
def test_official_pt_files_load(tmp_path: Path, weights: Tensors, wrap: Callable[[Tensors], object]) -> None:
    """A .pt file loads with or without the trainer's wrapper keys and FSDP's prefix."""
    torch.save(wrap(weights), tmp_path / "model_bf16.pt")
    model = load_checkpoint(tmp_path / "model_bf16.pt")
    assert torch.equal(model.state_dict()["blocks.1.ffn.0.weight"], weights["blocks.1.ffn.0.weight"])


class Payload:
    """A pickle that would make a file if it were run."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, weights: Tensors) -> None:
    """A pickle that holds code is refused before the code runs."""
    torch.save({"generator": weights, "more": Payload(tmp_path / "ran")}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match=rf"{name}.*pickle.*refused.*safetensors"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    """A missing file and a folder are errors that name the path."""
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors does not exist"):
        load_checkpoint(tmp_path / "nothing.safetensors")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_truncated_file_says_so(tmp_path: Path, weights: Tensors, share: float, kind: str) -> None:
    """A file that was cut at any place is reported as truncated."""
    path = tmp_path / f"m.{kind}"
    save_file(weights, path) if kind == "safetensors" else torch.save(weights, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"truncated.*copy it again"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"once upon a time there was a model", "not a safetensors file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{ no json here  ", "damaged header"),
        (b'\x0f\x00\x00\x00\x00\x00\x00\x00{"weight": [1]}', "damaged header"),
        (b'\x16\x00\x00\x00\x00\x00\x00\x00{"__metadata__": null}', "damaged header"),
        (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
    ],
    ids=["text", "no json", "no header", "no metadata", "gguf", "lfs", "html"],
)
def test_files_that_are_not_checkpoints_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    """Other files that users take for checkpoints are named: GGUF, git-lfs pointers, web pages, damaged headers."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_every_wrong_key_and_shape_is_listed_at_once(tmp_path: Path, weights: Tensors) -> None:
    """One error lists missing tensors, unknown tensors and wrong shapes."""
    changed = {**weights, "blocks.1.norm3.bias": torch.zeros(7), "blocks.0.extra.weight": torch.zeros(1)}
    del changed["head.modulation"]
    save_file(changed, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "m.safetensors")
    for part in (
        "1 missing: head.modulation",
        "1 unknown: blocks.0.extra.weight",
        "1 of another shape: blocks.1.norm3.bias [7] instead of [128]",
    ):
        assert part in str(error.value)


def test_long_lists_of_keys_are_shortened(tmp_path: Path, weights: Tensors) -> None:
    """An error lists the first names and counts the others, so that the message stays short."""
    save_file({k: v for k, v in weights.items() if not k.startswith("blocks.0.")}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "m.safetensors")
    save_file({k: v for k, v in weights.items() if ".cross_attn." not in k}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"20 missing: .* and 12 more") as error:
        load_checkpoint(tmp_path / "m.safetensors")
    assert len(str(error.value)) < 800


def test_nothing_is_read_before_everything_fits(tmp_path: Path) -> None:
    """The file has no tensor data at all, so an early read could not come as far as this error."""
    shapes = {name: tuple(value.shape) for name, value in CausalWan(CONFIG).state_dict().items()}
    path = header_only(tmp_path / "m.safetensors", {**shapes, "head.head.bias": (3,)})
    with pytest.raises(CheckpointError, match=r"head\.head\.bias \[3\] instead of \[192\]"):
        inspect_checkpoint(path)


def test_absurd_layer_numbers_are_refused_at_once(tmp_path: Path, weights: Tensors) -> None:
    """A layer number far above the number of tensors is refused before a model of this size is built."""
    save_file({**weights, "blocks.99999999.x": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="100000000 layers"):
        load_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        ("Wan2.1 1.3B", {"patch_embedding.weight": (1536, 16, 1, 2, 2)}),
        ("A14B, text to video", {"model.diffusion_model.patch_embedding.weight": (5120, 16, 1, 2, 2)}),
        ("A14B, image to video", {"patch_embedding.weight": (5120, 36, 1, 2, 2)}),
        ("VACE", {"patch_embedding.weight": (1536, 16, 1, 2, 2), "vace_blocks.0.before_proj.weight": (1,)}),
        (
            "LTX",
            {"model.diffusion_model.patchify_proj.weight": (1,), "model.diffusion_model.transformer_blocks.0.x": (1,)},
        ),
        ("Flux", {"double_blocks.0.img_attn.qkv.weight": (1,), "single_blocks.0.linear1.weight": (1,)}),
        ("HunyuanVideo", {"double_blocks.0.x": (1,), "txt_in.individual_token_refiner.blocks.0.x": (1,)}),
        (
            "Stable Diffusion XL",
            {"model.diffusion_model.input_blocks.0.0.weight": (1,), "model.diffusion_model.label_emb.0.0.weight": (1,)},
        ),
        (
            "Stable Diffusion 1",
            {"model.diffusion_model.input_blocks.0.0.weight": (1,), "model.diffusion_model.output_blocks.0.0.x": (1,)},
        ),
        ("layout of diffusers", {"condition_embedder.x": (1,), "blocks.0.attn1.to_q.weight": (1,)}),
        ("LoRA", {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (1,)}),
        ("VAE", {"encoder.conv1.weight": (1,), "decoder.conv1.weight": (1,), "conv2.weight": (1,)}),
        ("T5", {"shared.weight": (1,), "encoder.block.0.layer.0.SelfAttention.q.weight": (1,)}),
    ],
)
def test_other_models_are_named(tmp_path: Path, model: str, shapes: dict[str, tuple[int, ...]]) -> None:
    """A checkpoint of another known model is refused with the name of that model."""
    with pytest.raises(CheckpointError, match=rf"is .*{model}"):
        load_checkpoint(header_only(tmp_path / "m.safetensors", shapes))


def test_an_unknown_model_is_refused_with_its_tensors(tmp_path: Path) -> None:
    """A checkpoint of an unknown model is refused with the first names of its tensors."""
    path = header_only(tmp_path / "m.safetensors", {f"layer.{i}.weight": (4,) for i in range(30)})
    with pytest.raises(CheckpointError, match=r"not a Wan transformer.*layer\.0\.weight.*and 22 more"):
        load_checkpoint(path)


def test_the_float_format_is_reported(tmp_path: Path, weights: Tensors) -> None:
    """`format` is the dtype of the linear layers, `mixed` where they differ; a float file has no quantised layers."""
    half = {name: value.bfloat16() for name, value in weights.items()}
    save_file(half, tmp_path / "bf16.safetensors")
    save_file({**half, "blocks.0.ffn.0.weight": weights["blocks.0.ffn.0.weight"]}, tmp_path / "two.safetensors")
    checkpoint = inspect_checkpoint(tmp_path / "bf16.safetensors")
    assert (checkpoint.format, checkpoint.quantized, checkpoint.causal) == ("bf16", {}, None)
    assert checkpoint.linears["blocks.1.ffn.0"] == (64, 128)
    assert inspect_checkpoint(tmp_path / "two.safetensors").format == "mixed"


def nvfp4(rows: int, columns: int) -> Tensors:
    """A packed layer of zeros as ComfyUI keeps it; sizes are padded to 16, block scales to tiles of 128x4."""
    rows16, columns16 = -(-rows // 16) * 16, -(-columns // 16) * 16
    scales = (-(-rows16 // 128) * 128, -(-columns16 // 64) * 4)
    return {
        "weight": torch.zeros(rows16, columns16 // 2, dtype=torch.uint8),
        "weight_scale": torch.zeros(scales).to(torch.float8_e4m3fn),
        "weight_scale_2": torch.tensor(1.0),
    }


def note(comfy_format: str) -> Tensor:
    return torch.tensor(list(json.dumps({"format": comfy_format}).encode()), dtype=torch.uint8)


def with_layer(weights: Tensors, layer: str, parts: Tensors) -> Tensors:
    """The weights with a layer's tensors replaced."""
    return {**weights, **{f"{layer}.{name}": value for name, value in parts.items()}}


def fp8(weights: Tensors, layer: str) -> Tensor:
    return weights[f"{layer}.weight"].to(torch.float8_e4m3fn)


def test_nvfp4_files_load_as_they_are(tmp_path: Path, weights: Tensors) -> None:
    """Packed widths are the model's own, also of the layers that the sizes are read from."""
    state = weights
    for layer, (rows, columns) in {"blocks.0.ffn.2": (128, 64), "text_embedding.0": (128, 16)}.items():
        state = with_layer(state, layer, {**nvfp4(rows, columns), "comfy_quant": note("nvfp4")})
    state["blocks.0.ffn.2.input_scale"] = torch.tensor(1.0)
    path = tmp_path / "m.safetensors"
    save_file({f"model.diffusion_model.{name}": value for name, value in state.items()}, path)
    checkpoint = inspect_checkpoint(path)
    assert checkpoint.config == CONFIG
    assert checkpoint.format == "nvfp4"
    assert checkpoint.quantized == {"blocks.0.ffn.2": "nvfp4", "text_embedding.0": "nvfp4"}
    assert checkpoint.linears["blocks.0.ffn.2"] == (128, 64)
    model = load_checkpoint(path)
    assert isinstance(model.get_submodule("blocks.0.ffn.2"), NVFP4Linear)
    assert torch.equal(model.get_submodule("blocks.0.ffn.2")(torch.ones(1, 64)), weights["blocks.0.ffn.2.bias"][None])


@pytest.mark.parametrize("layout", ["comfy_quant", "metadata", "scaled_fp8", "plain"])
def test_every_layout_of_fp8_passes(tmp_path: Path, weights: Tensors, layout: str) -> None:
    """Today's tensors, today's metadata, the old `scaled_fp8`, and fp8 without any scale."""
    layer, metadata = "blocks.1.self_attn.q", None
    parts = {"weight": fp8(weights, layer)}
    if layout in ("comfy_quant", "metadata"):
        parts["weight_scale"] = torch.tensor(0.5)
    if layout == "comfy_quant":
        parts["comfy_quant"] = note("float8_e4m3fn")
    if layout == "metadata":
        layers = {f"model.diffusion_model.{layer}": {"format": "float8_e4m3fn"}}
        metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}
    if layout == "scaled_fp8":
        parts |= {"scale_weight": torch.ones(1), "scale_input": torch.ones(1)}
    state = with_layer(weights, layer, parts)
    if layout == "scaled_fp8":
        state["scaled_fp8"] = torch.zeros(2).to(torch.float8_e4m3fn)
    save_file({f"model.diffusion_model.{k}": v for k, v in state.items()}, tmp_path / "m.safetensors", metadata)
    checkpoint = inspect_checkpoint(tmp_path / "m.safetensors")
    assert (checkpoint.format, checkpoint.quantized) == ("fp8", {layer: "fp8"})
    loaded = load_checkpoint(tmp_path / "m.safetensors").get_submodule(layer)
    assert isinstance(loaded, FP8Linear)
    factor = 0.5 if layout in ("comfy_quant", "metadata") else 1.0
    assert torch.allclose(loaded.dequantized_weight(torch.float32), factor * parts["weight"].float())


def test_a_scale_that_only_comfyui_uses_is_not_passed_over(tmp_path: Path, weights: Tensors) -> None:
    """The layer would be wrong without it: the host loads such a file, we say what to do."""
    scale = {"pre_quant_scale": torch.full((128,), 2.0)}
    parts = {**nvfp4(64, 128), "comfy_quant": note("nvfp4"), **scale}
    save_file(with_layer(weights, "blocks.0.ffn.0", parts), tmp_path / "m.safetensors")
    assert inspect_checkpoint(tmp_path / "m.safetensors").format == "nvfp4"
    with pytest.raises(CheckpointError, match=r"blocks\.0\.ffn\.0 has a pre_quant_scale.*--format bf16"):
        load_checkpoint(tmp_path / "m.safetensors")


def test_two_quantised_formats_are_mixed(tmp_path: Path, weights: Tensors) -> None:
    """A file with nvfp4 and fp8 layers says of each which it is."""
    state = with_layer(weights, "blocks.0.ffn.0", {**nvfp4(64, 128), "comfy_quant": note("nvfp4")})
    state["blocks.0.ffn.2.weight"] = fp8(weights, "blocks.0.ffn.2")
    save_file(state, tmp_path / "m.safetensors")
    checkpoint = inspect_checkpoint(tmp_path / "m.safetensors")
    assert checkpoint.format == "mixed"
    assert checkpoint.quantized == {"blocks.0.ffn.0": "nvfp4", "blocks.0.ffn.2": "fp8"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"weight": torch.zeros(64, 63, dtype=torch.uint8)}, r"weight \[64, 63\] instead of \[64, 64\]"),
        ({"weight": torch.zeros(64, 64)}, r"1 of another dtype: .*weight F32 instead of U8"),
        ({"weight_scale": torch.zeros(64, 8).to(torch.float8_e4m3fn)}, r"\[64, 8\] instead of \[128, 8\]"),
        ({"weight_scale_2": None}, r"1 missing: blocks\.0\.ffn\.0\.weight_scale_2"),
        ({"weight_zero": torch.zeros(1)}, r"1 unknown: blocks\.0\.ffn\.0\.weight_zero"),
        ({"comfy_quant": None}, r"2 unknown: blocks\.0\.ffn\.0\.weight_scale"),
        ({"comfy_quant": note("int8_tensorwise")}, r"ffn\.0 \(int8_tensorwise\); supported are nvfp4"),
        ({"comfy_quant": torch.tensor([123], dtype=torch.uint8)}, "damaged quantisation settings"),
        ({"bias": torch.zeros(64).to(torch.float8_e4m3fn)}, r"bias F8_E4M3 instead of BF16 or"),
    ],
    ids=["width", "float", "scales", "no scale", "unknown", "no note", "other format", "damaged", "fp8 bias"],
)
def test_packed_layers_are_checked(
    tmp_path: Path, weights: Tensors, parts: dict[str, Tensor | None], message: str
) -> None:
    """Whatever ComfyUI would drop or misread in a packed layer is an error that names it."""
    layer: dict[str, Tensor | None] = {**nvfp4(64, 128), "comfy_quant": note("nvfp4"), **parts}
    present = {name: value for name, value in layer.items() if value is not None}
    save_file(with_layer(weights, "blocks.0.ffn.0", present), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=message):
        inspect_checkpoint(tmp_path / "m.safetensors")


def test_only_linear_layers_are_quantised(tmp_path: Path, weights: Tensors) -> None:
    """A norm in fp8 is refused, also where quantised layers are welcome."""
    save_file(
        {**weights, "blocks.0.norm3.weight": weights["blocks.0.norm3.weight"].to(torch.float8_e4m3fn)},
        tmp_path / "m.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"blocks\.0\.norm3\.weight F8_E4M3 instead of"):
        inspect_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("metadata", "causal"),
    [
        ({"longlive": {"causal": True}}, True),
        ({"config": {"transformer": {"causal_ar": True}}}, True),
        ({"config": {"_class_name": "CausalWanModel", "num_heads": 4}}, True),
        ({"config": {"num_heads": 4}}, None),
        ({}, None),
    ],
)
def test_causality_is_read_from_metadata(
    tmp_path: Path, weights: Tensors, metadata: dict[str, object], causal: bool | None
) -> None:
    """Our own key and core's say that a model is causal; without a word it stays unknown, never assumed."""
    save_file(weights, tmp_path / "m.safetensors", {name: json.dumps(value) for name, value in metadata.items()})
    checkpoint = inspect_checkpoint(tmp_path / "m.safetensors")
    assert checkpoint.causal is causal
    assert checkpoint.config.num_heads == (4 if "num_heads" in str(metadata) else 1)


def test_official_pt_files_are_causal(tmp_path: Path, weights: Tensors) -> None:
    """The table `generator` is the wrapper of LongLive's trainer; bare tensors could be anyone's."""
    torch.save({"generator": {"model": weights}}, tmp_path / "model_bf16.pt")
    torch.save(weights, tmp_path / "bare.pt")
    assert inspect_checkpoint(tmp_path / "model_bf16.pt").causal is True
    assert inspect_checkpoint(tmp_path / "bare.pt").causal is None


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("wan2.2_ti2v_5B_fp16", {}),
        ("Wan2_2-TI2V-5B_fp8_e4m3fn_scaled_KJ", {}),
        ("WAN2.2-TI2V-5B", {}),
        ("m", {"modelspec.title": "Wan2.2-TI2V-5B"}),
        ("m", {"longlive": json.dumps({"causal": False})}),
        ("m", {"config": json.dumps({"_class_name": "WanModel"})}),
    ],
)
def test_the_ordinary_wan_is_refused(tmp_path: Path, weights: Tensors, name: str, metadata: dict[str, str]) -> None:
    """Its names and shapes are LongLive's, so only its file's name and metadata tell it; it would make noise."""
    save_file(weights, tmp_path / f"{name}.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"ordinary \(bidirectional\) Wan2\.2 TI2V 5B.*Get LongLive-2\.0-5B"):
        inspect_checkpoint(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("name", ["longlive2_wan2.2_ti2v_5B", "wan2.2_ti2v_5B_longlive2_bf16", "Wan2.2-TI2V-5B-causal"])
def test_a_name_that_tells_of_both_is_no_refusal(tmp_path: Path, weights: Tensors, name: str) -> None:
    """A LongLive file that is named after what it is built on loads; so does any name with our metadata."""
    save_file(weights, tmp_path / f"{name}.safetensors")
    assert inspect_checkpoint(tmp_path / f"{name}.safetensors").causal is None
    save_file(weights, tmp_path / "wan2.2_ti2v_5B.safetensors", {"longlive": json.dumps({"causal": True})})
    assert inspect_checkpoint(tmp_path / "wan2.2_ti2v_5B.safetensors").causal is True


@pytest.mark.parametrize("text", ["{", "[1]", '{"num_heads": 3}', '{"num_heads": "many"}'])
def test_damaged_metadata_is_an_error(tmp_path: Path, weights: Tensors, text: str) -> None:
    """Metadata that is no JSON object, or that clashes with the shapes, is an error that names the file."""
    save_file(weights, tmp_path / "m.safetensors", {"config": text})
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        inspect_checkpoint(tmp_path / "m.safetensors")


def test_recorded_weights_load(golden: Callable[[str], Path]) -> None:
    """The tiny reference weights, whose names are Wan's, and FourOverSix ones, which stay in four bits."""
    assert load_checkpoint(golden("weights_tiny")).config.dim > 0
    checkpoint = inspect_checkpoint(golden("weights_4o6"))
    assert checkpoint.format == "nvfp4" and len(checkpoint.quantized) == 20
    assert isinstance(load_checkpoint(golden("weights_4o6")).get_submodule("blocks.1.ffn.0"), NVFP4Linear)
