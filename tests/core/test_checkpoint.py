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
    save_file({prefix + k: v.to(dtype) for k, v in weights.items()}, tmp_path / "m.safetensors")
    model = load_checkpoint(tmp_path / "m.safetensors")
    assert model.config == CONFIG
    assert model.dtype == dtype
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name].to(dtype)), name


def test_dtype_and_grad_are_as_asked(saved: Path) -> None:
    model = load_checkpoint(saved, dtype=torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_metadata_tells_what_shapes_cannot(tmp_path: Path, weights: Tensors) -> None:
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
    torch.save({"generator": weights, "more": Payload(tmp_path / "ran")}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match=rf"{name}.*pickle.*refused.*safetensors"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors does not exist"):
        load_checkpoint(tmp_path / "nothing.safetensors")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_a_truncated_file_says_so(tmp_path: Path, weights: Tensors, share: float, kind: str) -> None:
    path = tmp_path / f"m.{kind}"
    save_file(weights, path) if kind == "safetensors" else torch.save(weights, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"truncated.*copy it again"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"once upon a time there was a model", "not a safetensors file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{ no json here  ", "damaged header"),
        (b'\x0f\x00\x00\x00\x00\x00\x00\x00{"weight": [1]}', "damaged header"),
        (b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
    ],
    ids=["text", "no json", "no header", "gguf", "lfs", "html"],
)
def test_what_is_no_checkpoint_is_told_apart(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path)


def test_every_wrong_key_and_shape_is_listed_at_once(tmp_path: Path, weights: Tensors) -> None:
    changed = {**weights, "blocks.1.norm3.bias": torch.zeros(7), "blocks.0.extra.weight": torch.zeros(1)}
    del changed["head.modulation"]
    save_file(changed, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError) as told:
        load_checkpoint(tmp_path / "m.safetensors")
    for part in (
        "1 missing: head.modulation",
        "1 unknown: blocks.0.extra.weight",
        "1 of another shape: blocks.1.norm3.bias [7] instead of [128]",
    ):
        assert part in str(told.value)


def test_long_lists_of_keys_are_shortened(tmp_path: Path, weights: Tensors) -> None:
    save_file({k: v for k, v in weights.items() if not k.startswith("blocks.0.")}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError) as told:
        load_checkpoint(tmp_path / "m.safetensors")
    save_file({k: v for k, v in weights.items() if ".cross_attn." not in k}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"20 missing: .* and 12 more") as told:
        load_checkpoint(tmp_path / "m.safetensors")
    assert len(str(told.value)) < 800


def test_nothing_is_read_before_everything_fits(tmp_path: Path) -> None:
    """The file has no tensor data at all, so an early read could not come as far as this error."""
    shapes = {name: tuple(value.shape) for name, value in CausalWan(CONFIG).state_dict().items()}
    path = header_only(tmp_path / "m.safetensors", {**shapes, "head.head.bias": (3,)})
    with pytest.raises(CheckpointError, match=r"head\.head\.bias \[3\] instead of \[192\]"):
        inspect_checkpoint(path)


def test_absurd_layer_numbers_are_refused_at_once(tmp_path: Path, weights: Tensors) -> None:
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
    with pytest.raises(CheckpointError, match=rf"is .*{model}"):
        load_checkpoint(header_only(tmp_path / "m.safetensors", shapes))


def test_an_unknown_model_is_told_by_its_tensors(tmp_path: Path) -> None:
    path = header_only(tmp_path / "m.safetensors", {f"layer.{i}.weight": (4,) for i in range(30)})
    with pytest.raises(CheckpointError, match=r"not a Wan transformer.*layer\.0\.weight.*and 22 more"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("said", "extra", "dtype"),
    [
        ("FourOverSix NVFP4", ".quantized_weight_values", "U8"),
        ("NVFP4", ".weight_scale_2", "U8"),
        ("scaled fp8", ".scale_weight", "F8_E4M3"),
        ("fp8", ".weight", "F8_E4M3"),
    ],
)
def test_quantised_checkpoints_are_named_not_misread(tmp_path: Path, said: str, extra: str, dtype: str) -> None:
    shapes = {"model.patch_embedding.weight": (3072, 48, 1, 2, 2), f"model.blocks.0.self_attn.q{extra}": (1,)}
    with pytest.raises(CheckpointError, match=rf"has {said} weights.*use the bf16 checkpoint"):
        load_checkpoint(header_only(tmp_path / "m.safetensors", shapes, dtype))


def test_recorded_weights_load(golden: Path) -> None:
    """The tiny reference weights, whose names are Wan's; the FourOverSix twin is recognised."""
    assert load_checkpoint(golden / "weights_tiny.safetensors").config.dim > 0
    with pytest.raises(CheckpointError, match="FourOverSix"):
        load_checkpoint(golden / "weights_4o6.safetensors")
