"""A converted checkpoint holds the source's model in another format, or there is no file at all."""

from __future__ import annotations

import argparse
import json
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from longlive.kernels import NVFP4, dequantize_nvfp4, quantize_nvfp4, swap_nibbles
from longlive.longlive_core.cli.convert import add_arguments, convert_lines
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.weights import (
    CheckpointError,
    LoraFile,
    TensorSource,
    TensorSpec,
    checkpoint,
    convert_checkpoint,
    fouroversix,
    inspect_checkpoint,
    load_checkpoint,
    open_source,
    packing,
    read_lora,
)
from longlive.longlive_core.weights.convert import ConversionStopped, ConvertProgress
from longlive.longlive_core.weights.convert_report import progress_line, report_lines
from longlive.longlive_core.weights.safetensors_writer import file_size, write_safetensors
from longlive.longlive_core.weights.weight_reader import open_weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

# Rows and columns of ffn are no multiples of 16, so that packed layers are padded.
CONFIG = WanConfig(dim=128, ffn_dim=72, num_heads=2, num_layers=2, freq_dim=32, text_dim=16, text_len=40, eps=1e-5)
METADATA = {"longlive": json.dumps({"causal": True, "num_heads": 2, "text_len": 40, "eps": 1e-5})}
FORMATS = ("bf16", "fp8", "nvfp4")
# What a format costs a normal distribution, with room for layers as small as these.
COSTS = {"bf16": 0.003, "fp8": 0.03, "nvfp4": 0.11}

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Tensors:
    torch.manual_seed(0)
    return {name: torch.randn_like(value).bfloat16() for name, value in CausalWan(CONFIG).state_dict().items()}


@pytest.fixture
def source(tmp_path: Path, weights: Tensors) -> Path:
    save_file(weights, tmp_path / "source.safetensors", METADATA)
    return tmp_path / "source.safetensors"


@pytest.fixture
def lora(tmp_path: Path, weights: Tensors) -> Path:
    torch.manual_seed(1)
    halves: Tensors = {}
    for layer in block_linears(weights):
        rows, columns = weights[f"{layer}.weight"].shape
        halves[f"{layer}.lora_A.weight"] = torch.randn(4, columns)
        halves[f"{layer}.lora_B.weight"] = torch.randn(rows, 4)
    save_file(halves, tmp_path / "lora.safetensors", {"lora_alpha": "2"})
    return tmp_path / "lora.safetensors"


def block_linears(weights: Tensors) -> list[str]:
    named = [name.removesuffix(".weight") for name, w in weights.items() if name.endswith(".weight") and w.ndim == 2]
    return [name for name in named if name.startswith("blocks.")]


def floats(path: Path) -> Tensors:
    """Every tensor of the model, dequantised."""
    read = open_weights(path)
    return {name: read.read_float(name).float() for name in read.shapes}


def far(a: Tensor, b: Tensor) -> float:
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def same_bytes(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and torch.equal(a[n].reshape(-1).view(torch.uint8), b[n].reshape(-1).view(torch.uint8))
        for n in a
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("quant_format", FORMATS)
def test_a_converted_file_is_the_same_model(tmp_path: Path, weights: Tensors, source: Path, quant_format: str) -> None:
    """The blocks' linear layers are in the format, all else is bf16 and equal; the settings in the metadata stay."""
    done = convert_checkpoint(source, tmp_path / "new.safetensors", format=quant_format)
    converted = inspect_checkpoint(tmp_path / "new.safetensors")
    layers = block_linears(weights)
    assert (converted.config, converted.format, converted.causal) == (CONFIG, quant_format, True)
    assert converted.quantized == ({} if quant_format == "bf16" else dict.fromkeys(layers, quant_format))
    assert (done.quantized, done.copied, done.unquantized) == (
        len(converted.quantized),
        0,
        len(weights) - len(converted.quantized),
    )
    assert done.bytes_out == (tmp_path / "new.safetensors").stat().st_size
    for name, value in floats(tmp_path / "new.safetensors").items():
        if name.removesuffix(".weight") in converted.quantized:
            assert 0 < far(value, weights[name]) < COSTS[quant_format], name
        else:
            assert torch.equal(value, weights[name].float()), name


def test_every_way_to_store_floats_gives_the_same_file(tmp_path: Path, weights: Tensors, source: Path) -> None:
    """Prefixes, wider dtypes and the official .pt make no difference, for they hold the same numbers."""
    save_file(
        {f"model.diffusion_model.{n}": w.float() for n, w in weights.items()}, tmp_path / "wide.safetensors", METADATA
    )
    torch.save({"generator": {f"model.{name}": w for name, w in weights.items()}}, tmp_path / "model_bf16.pt")
    convert_checkpoint(source, tmp_path / "a.safetensors", format="nvfp4")
    for path in (tmp_path / "wide.safetensors", tmp_path / "model_bf16.pt"):
        convert_checkpoint(path, tmp_path / "b.safetensors", format="nvfp4", overwrite=True)
        assert same_bytes(load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors"))


def test_nvfp4_is_as_comfyui_reads_it(tmp_path: Path, weights: Tensors, source: Path) -> None:
    """Even columns in the high nibble, sizes to 16, swizzled scales, and amax / (6 · 256) beside them."""
    convert_checkpoint(source, tmp_path / "new.safetensors", format="nvfp4")
    new, layer = load_file(tmp_path / "new.safetensors"), "blocks.1.ffn.2"
    exact = quantize_nvfp4(weights[f"{layer}.weight"].float(), "mse")
    assert torch.equal(swap_nibbles(new[f"{layer}.weight"]), exact.values[:128, :40])
    assert new[f"{layer}.weight_scale"].shape == (128, 8)
    assert torch.equal(new[f"{layer}.weight_scale"].view(torch.uint8).flatten(), exact.scales.view(torch.uint8))
    assert new[f"{layer}.weight_scale_2"].shape == ()
    assert torch.equal(new[f"{layer}.weight_scale_2"], exact.amax / torch.tensor(1536.0))
    assert json.loads(bytes(new[f"{layer}.comfy_quant"].tolist())) == {"format": "nvfp4"}


def test_fp8_is_scaled_to_its_whole_range(tmp_path: Path, weights: Tensors, source: Path) -> None:
    """A layer's largest magnitude becomes 448, so that small weights do not vanish; ComfyUI reads the format's name."""
    convert_checkpoint(source, tmp_path / "new.safetensors", format="fp8")
    new, layer = load_file(tmp_path / "new.safetensors"), "blocks.1.ffn.2"
    assert torch.equal(new[f"{layer}.weight_scale"], weights[f"{layer}.weight"].float().abs().amax() / 448)
    assert new[f"{layer}.weight"].float().abs().amax() == 448
    assert json.loads(bytes(new[f"{layer}.comfy_quant"].tolist())) == {"format": "float8_e4m3fn"}


def test_fouroversix_layers_are_the_weights_they_were_made_of(tmp_path: Path, weights: Tensors) -> None:
    """Values, scales and the largest magnitude, which stands for 6 · 256, are decoded to the very numbers."""
    state, exact = {**weights}, dict[str, Tensor]()
    for layer in block_linears(weights):
        weight = state.pop(f"{layer}.weight").float()
        packed = quantize_nvfp4(weight, "mse")
        exact[layer] = dequantize_nvfp4(packed, (weight.shape[0], weight.shape[1]), torch.float32)
        sizes = torch.tensor([*weight.shape, packed.values.shape[0], 2 * packed.values.shape[1]], dtype=torch.int32)
        parts = (packed.values, packed.scales.view(torch.uint8), packed.amax, sizes)
        state |= {layer + name: part for name, part in zip(fouroversix.PARTS, parts, strict=True)}
    save_file(state, tmp_path / "model_4o6.safetensors")
    read = floats(tmp_path / "model_4o6.safetensors")
    for layer, weight in exact.items():
        torch.testing.assert_close(read[f"{layer}.weight"], weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_fouroversix_loses_nothing(tmp_path: Path, golden: Callable[[str], Path], kind: str) -> None:
    """The official 4-bit layout keeps its codes and scales; only the nibbles change places and amax is divided."""
    stored = load_file(golden("weights_4o6"))
    path = tmp_path / f"model_4o6.{kind}"
    if kind == "pt":
        marks = {n: t.view(torch.float8_e4m3fn) if n.endswith("scale_factors") else t for n, t in stored.items()}
        marks = {n: t.reshape(1) if n.endswith("_amax") else t for n, t in marks.items()}
        torch.save({"generator": marks, "checkpoint_format": "longlive_generator_nvfp4", "version": 1}, path)
    else:
        shutil.copy(golden("weights_4o6"), path)
    done = convert_checkpoint(path, tmp_path / "new.safetensors", format="nvfp4")
    assert done.copied == done.quantized == 20
    new, read = load_file(tmp_path / "new.safetensors"), floats(tmp_path / "new.safetensors")
    for layer in inspect_checkpoint(tmp_path / "new.safetensors").quantized:
        values, scales, amax = (
            stored[f"model.{layer}.quantized_weight_{part}"] for part in ("values", "scale_factors", "amax")
        )
        assert torch.equal(swap_nibbles(new[f"{layer}.weight"]), values)
        assert torch.equal(new[f"{layer}.weight_scale"].view(torch.uint8).flatten(), scales)
        rule = NVFP4(values, scales.view(torch.float8_e4m3fn), amax, 1536.0)
        exact = dequantize_nvfp4(rule, tuple(read[f"{layer}.weight"].shape), torch.float32)
        torch.testing.assert_close(read[f"{layer}.weight"], exact, rtol=3e-7, atol=0)


def test_bf16_quantises_to_the_official_weights(tmp_path: Path, golden: Callable[[str], Path]) -> None:
    """Converting the recorded bf16 weights gives, to the bit, what converting their FourOverSix twin gives."""
    for name in ("weights_quant", "weights_4o6"):
        convert_checkpoint(golden(name), tmp_path / f"{name}.safetensors", format="nvfp4")
    assert same_bytes(
        load_file(tmp_path / "weights_quant.safetensors"), load_file(tmp_path / "weights_4o6.safetensors")
    )


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("values", torch.zeros(1024, 128, dtype=torch.uint8)),
        ("scale_factors", torch.zeros(100, dtype=torch.uint8)),
        ("metadata", torch.tensor([1024, 512, 1024, 576], dtype=torch.int32)),
        ("metadata", torch.tensor([1024], dtype=torch.int32)),
        ("amax", None),
    ],
    ids=["values", "scales", "sizes", "few sizes", "no amax"],
)
def test_fouroversix_layers_that_do_not_fit(
    tmp_path: Path, golden: Callable[[str], Path], part: str, value: Tensor | None
) -> None:
    """A layer whose parts are of different sizes, or lacks one, is named before anything is written."""
    stored = load_file(golden("weights_4o6"))
    name = f"model.blocks.1.ffn.0.quantized_weight_{part}"
    changed = {n: t for n, t in {**stored, name: value}.items() if t is not None}
    save_file(changed, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"m\.safetensors.*blocks\.1\.ffn\.0.*copy it again"):
        convert_checkpoint(tmp_path / "m.safetensors", tmp_path / "new.safetensors", format="nvfp4")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("quant_format", ["fp8", "nvfp4"])
def test_layers_that_are_in_the_format_are_copied(tmp_path: Path, source: Path, quant_format: str) -> None:
    """Quantised again, a layer is the same to the bit, whatever the rule; in bf16 it is the same number, rounded."""
    packed, again, bf16 = (tmp_path / f"{name}.safetensors" for name in ("packed", "again", "bf16"))
    convert_checkpoint(source, packed, format=quant_format)
    done = convert_checkpoint(packed, again, format=quant_format, rule="static_4")
    assert done.copied == done.quantized == 20
    assert same_bytes(load_file(packed), load_file(again))
    convert_checkpoint(packed, bf16, format="bf16")
    assert all(torch.equal(value.bfloat16(), load_file(bf16)[name]) for name, value in floats(packed).items())


@pytest.mark.parametrize("layout", ["metadata", "scaled_fp8", "plain", "e5m2"])
def test_every_layout_of_fp8_becomes_todays(tmp_path: Path, weights: Tensors, layout: str) -> None:
    """Values and scales are copied; each layer gets `comfy_quant`, and a scale of 1 if it had none."""
    dtype = torch.float8_e5m2 if layout == "e5m2" else torch.float8_e4m3fn
    scale = torch.tensor(0.5) if layout in ("metadata", "scaled_fp8") else torch.tensor(1.0)
    state, layers, metadata = dict(weights), block_linears(weights), dict(METADATA)
    for layer in layers:
        state[f"{layer}.weight"] = (weights[f"{layer}.weight"].float() / scale).to(dtype)
        if scale != 1:
            state[f"{layer}.{'scale_weight' if layout == 'scaled_fp8' else 'weight_scale'}"] = scale.clone()
    if layout == "scaled_fp8":
        state |= {"scaled_fp8": torch.zeros(2).to(dtype), f"{layers[0]}.scale_input": torch.tensor([2.0])}
    if layout == "metadata":
        notes = {layer: {"format": "float8_e4m3fn"} for layer in layers}
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": notes})
    save_file(state, tmp_path / "old.safetensors", metadata)
    done = convert_checkpoint(tmp_path / "old.safetensors", tmp_path / "new.safetensors", format="fp8")
    assert done.copied == done.quantized == 20
    new = load_file(tmp_path / "new.safetensors")
    for layer in layers:
        assert new[f"{layer}.weight"].dtype == dtype
        assert torch.equal(new[f"{layer}.weight"].view(torch.uint8), state[f"{layer}.weight"].view(torch.uint8))
        assert torch.equal(new[f"{layer}.weight_scale"], scale)
        note = json.loads(bytes(new[f"{layer}.comfy_quant"].tolist()))
        assert note.pop("format") == ("float8_e5m2" if layout == "e5m2" else "float8_e4m3fn")
        assert note == ({"full_precision_matrix_mult": True} if layout == "scaled_fp8" else {})
    assert (f"{layers[0]}.input_scale" in new) == (layout == "scaled_fp8")
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        assert "_quantization_metadata" not in file.metadata()


def test_a_smoothed_layer_is_itself_again_in_floats(tmp_path: Path, source: Path) -> None:
    """ComfyUI multiplies the input by `pre_quant_scale`; as floats the weight has it in its columns."""
    convert_checkpoint(source, tmp_path / "packed.safetensors", format="nvfp4")
    state, smooth = load_file(tmp_path / "packed.safetensors"), torch.linspace(0.5, 2, 128)
    save_file({**state, "blocks.0.ffn.0.pre_quant_scale": smooth}, tmp_path / "smooth.safetensors", METADATA)
    plain, smoothed = floats(tmp_path / "packed.safetensors"), floats(tmp_path / "smooth.safetensors")
    torch.testing.assert_close(smoothed["blocks.0.ffn.0.weight"], plain["blocks.0.ffn.0.weight"] * smooth)


def test_other_fp8_scales_than_one_a_row_are_refused(tmp_path: Path, weights: Tensors) -> None:
    """A scale for each block of a weight would be read wrongly."""
    layer = "blocks.0.ffn.0"
    note = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    parts = {"weight": weights[f"{layer}.weight"].to(torch.float8_e4m3fn), "weight_scale": torch.ones(9, 16)}
    state = {**weights, **{f"{layer}.{n}": t for n, t in parts.items()}, f"{layer}.comfy_quant": note}
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"scale for each block.*blocks\.0\.ffn\.0 \[9, 16\]"):
        convert_checkpoint(tmp_path / "m.safetensors", tmp_path / "new.safetensors", format="bf16")


def test_a_lora_is_merged_before_rounding(tmp_path: Path, weights: Tensors, source: Path, lora: Path) -> None:
    """W + strength · alpha / rank · up @ down in float32, then one rounding: not bf16 first."""
    done = convert_checkpoint(source, tmp_path / "new.safetensors", format="nvfp4", loras=[LoraFile(lora, 0.5)])
    assert [len(report.applied) for report in done.loras] == [20]
    read = floats(tmp_path / "new.safetensors")
    for layer, change in read_lora(lora).layers.items():
        merged = weights[f"{layer}.weight"].float() + 0.5 * 2 / 4 * (change.up @ change.down)
        exact = packing.unpack(packing.pack(merged, "nvfp4", "mse"), (merged.shape[0], merged.shape[1]))
        torch.testing.assert_close(read[f"{layer}.weight"], exact, rtol=1e-6, atol=0)
        assert far(read[f"{layer}.weight"], merged) < COSTS["nvfp4"]
    convert_checkpoint(source, tmp_path / "bf16.safetensors", format="bf16", loras=[LoraFile(lora, 0.5)])
    merged_state = read_lora(lora).merge({name: value.float() for name, value in weights.items()}, 0.5)
    for name, value in load_checkpoint(tmp_path / "bf16.safetensors").state_dict().items():
        # One step of bf16: where the two sums differ in their last bit, they may be rounded to neighbours.
        torch.testing.assert_close(value, merged_state[name].bfloat16(), rtol=2**-7, atol=0, msg=name)


def test_a_lora_never_rounds_quantised_layers_again(tmp_path: Path, source: Path, lora: Path) -> None:
    """A LoRA is merged into quantised layers only if the target is bf16; otherwise the error gives the remedy."""
    convert_checkpoint(source, tmp_path / "packed.safetensors", format="fp8")
    loras = [LoraFile(lora)]
    for quant_format in ("fp8", "nvfp4"):
        with pytest.raises(CheckpointError, match=r"cannot be merged into quantised.*Start from the bf16 checkpoint"):
            convert_checkpoint(
                tmp_path / "packed.safetensors", tmp_path / "new.safetensors", format=quant_format, loras=loras
            )
    convert_checkpoint(tmp_path / "packed.safetensors", tmp_path / "new.safetensors", format="bf16", loras=loras)
    layer = read_lora(lora).layers["blocks.0.ffn.2"]
    exact = floats(tmp_path / "packed.safetensors")["blocks.0.ffn.2.weight"] + 2 / 4 * (layer.up @ layer.down)
    assert far(floats(tmp_path / "new.safetensors")["blocks.0.ffn.2.weight"], exact) < COSTS["bf16"]


def test_where_a_file_comes_from_is_kept(tmp_path: Path, weights: Tensors, lora: Path) -> None:
    """The author's words stay, the hash of the old content does not, and what was done is written down."""
    metadata = {**METADATA, "modelspec.author": "someone", "modelspec.hash_sha256": "0", "_quantization_metadata": "{}"}
    save_file(weights, tmp_path / "old.safetensors", metadata)
    convert_checkpoint(
        tmp_path / "old.safetensors", tmp_path / "new.safetensors", format="nvfp4", loras=[LoraFile(lora)]
    )
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        metadata = file.metadata()
    assert set(metadata) == {"format", "modelspec.author", "longlive"}
    done = {"from": "old.safetensors", "format": "nvfp4", "rule": "mse", "lora": "lora.safetensors", "strength": "1.0"}
    assert json.loads(metadata["longlive"])["converted"] == done


def test_doubts_about_the_source_are_noted(tmp_path: Path, weights: Tensors, source: Path) -> None:
    """The report notes a source that does not say that it is causal, and layers that are rounded twice."""
    save_file(weights, tmp_path / "silent.safetensors")
    done = convert_checkpoint(tmp_path / "silent.safetensors", tmp_path / "fp8.safetensors", format="fp8")
    assert any("note: silent.safetensors does not say whether it is causal" in line for line in report_lines(done))
    done = convert_checkpoint(tmp_path / "fp8.safetensors", tmp_path / "nvfp4.safetensors", format="nvfp4")
    assert "20 layers were quantised before" in [note.partition(" and")[0] for note in done.notes]
    assert convert_checkpoint(source, tmp_path / "bf16.safetensors", format="bf16").notes == ()


def some_tensors() -> Tensors:
    """Dtypes of every width and odd sizes, so that a careless order would misalign them."""
    return {
        "note": torch.arange(19, dtype=torch.uint8),
        "scale": torch.tensor(2.5),
        "bias": torch.arange(7).bfloat16(),
        "codes": torch.linspace(-3, 3, 15).view(3, 5).to(torch.float8_e4m3fn),
        "wide": torch.arange(3, dtype=torch.float64),
        "turned": torch.arange(6).float().view(2, 3).T,
    }


def specs_of(tensors: Tensors) -> dict[str, TensorSpec]:
    save = {name: tensor.contiguous() for name, tensor in tensors.items()}
    names = {torch.uint8: "U8", torch.float32: "F32", torch.bfloat16: "BF16", torch.float64: "F64"}
    return {n: TensorSpec(names.get(t.dtype, "F8_E4M3"), tuple(t.shape)) for n, t in save.items()}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Any reader of safetensors gets the tensors back, in whatever order they came, and the size was known before.

    Each lies at a multiple of its width in the file, as readers need it that map the file, ComfyUI's among them.
    """
    tensors, path = some_tensors(), tmp_path / "x.safetensors"
    specs, metadata = specs_of(tensors), {"who": "me", "what": "ünïcode"}
    write_safetensors(path, specs, metadata, reversed(tensors.items()))
    assert same_bytes(load_file(path), {name: tensor.contiguous() for name, tensor in tensors.items()})
    assert path.stat().st_size == file_size(specs, metadata)
    assert open_source(path).specs == specs
    assert open_source(path).metadata == metadata
    data = path.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:head]).items():
        if name != "__metadata__":
            assert (head + entry["data_offsets"][0]) % tensors[name].itemsize == 0, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {**t, "note": torch.zeros(19)}, r"'note'.*differs from the header"),
        (lambda t: {**t, "note": torch.zeros(18, dtype=torch.uint8)}, r"'note'.*differs from the header"),
        (lambda t: {**t, "more": torch.zeros(1)}, r"'more'.*differs from the header"),
        (lambda t: {n: v for n, v in t.items() if n != "wide"}, r"1 tensors are missing: wide"),
    ],
    ids=["dtype", "shape", "unknown", "missing"],
)
def test_the_writer_keeps_to_its_header(tmp_path: Path, change: Callable[[Tensors], Tensors], message: str) -> None:
    """A tensor that the header does not describe so is an error, and so is one that is missing."""
    tensors = some_tensors()
    with pytest.raises(ValueError, match=message):
        write_safetensors(tmp_path / "x.safetensors", specs_of(tensors), {}, change(tensors).items())


def test_the_writer_holds_one_tensor(tmp_path: Path) -> None:
    """The tensor before is gone when the next one is made."""
    specs = {f"t{index}": TensorSpec("F32", (4,)) for index in range(5)}
    made: list[weakref.ref[Tensor]] = []

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name in specs:
            assert [alive for alive in made if alive() is not None] == []
            tensor = torch.zeros(4)
            made.append(weakref.ref(tensor))
            pair = [(name, tensor)]
            del tensor
            yield pair.pop()

    write_safetensors(tmp_path / "x.safetensors", specs, {}, tensors())
    assert len(made) == 5


@pytest.mark.parametrize("quant_format", FORMATS)
def test_a_conversion_holds_one_layer(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, quant_format: str
) -> None:
    """Whenever a tensor is read, none of the tensors that were read for other layers is alive."""
    alive: list[tuple[str, weakref.ref[Tensor]]] = []
    others: set[str] = set()

    def spied(path: Path) -> TensorSource:
        inner = open_source(path)

        def read(names: Iterable[str]) -> Tensors:
            tensors = inner.read(names)
            for name, tensor in tensors.items():
                others.update(n for n, ref in alive if ref() is not None and n != name)
                alive.append((name, weakref.ref(tensor)))
            return tensors

        return replace(inner, read=read) if path == source else inner

    monkeypatch.setattr(checkpoint, "open_source", spied)
    convert_checkpoint(source, tmp_path / "new.safetensors", format=quant_format)
    assert len(alive) == 2 * len(load_file(source))
    assert others == set()


@pytest.mark.parametrize("there", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("how", ["should_stop", "interrupt"])
def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, source: Path, there: bool, share: float, how: str
) -> None:
    """Stopped while writing or checking, the folder is as before; a file that was to be replaced is still there."""
    if there:
        (tmp_path / "new.safetensors").write_bytes(b"an older file")
    before, now = files(tmp_path), [0.0]

    def watch(progress: ConvertProgress) -> None:
        now[0] = progress.fraction
        if how == "interrupt" and progress.fraction >= share:
            raise KeyboardInterrupt

    with pytest.raises(ConversionStopped if how == "should_stop" else KeyboardInterrupt):
        convert_checkpoint(
            source,
            tmp_path / "new.safetensors",
            format="fp8",
            overwrite=True,
            on_progress=watch,
            should_stop=lambda: how == "should_stop" and now[0] >= share,
        )
    assert files(tmp_path) == before


def test_progress_rises_over_both_halves(tmp_path: Path, source: Path, weights: Tensors) -> None:
    """Each tensor is named when it is written and when it is checked, and the shares rise from 0 to 1."""
    reported: list[ConvertProgress] = []
    convert_checkpoint(source, tmp_path / "new.safetensors", format="fp8", on_progress=reported.append)
    assert [progress.name for progress in reported] == [*weights, *weights]
    shares = [progress.fraction for progress in reported]
    assert shares == sorted(shares) and shares[0] == 0 and shares[len(weights)] == 0.5 and shares[-1] < 1
    assert progress_line(reported[-1]).startswith("checking head.")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["blocks.1.self_attn.q.weight", "blocks.1.norm3.bias"])
def test_what_is_not_finite_is_an_error(tmp_path: Path, weights: Tensors, name: str, value: float) -> None:
    """A tensor with NaN or infinity is named, and there is no file."""
    broken = weights[name].clone()
    broken.view(-1)[3] = value
    save_file({**weights, name: broken}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=rf"'{name}' holds NaN or infinity"):
        convert_checkpoint(tmp_path / "m.safetensors", tmp_path / "new.safetensors", format="nvfp4")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_packed_layer_with_nan_is_refused(tmp_path: Path, source: Path) -> None:
    """A layer that goes over as it is is read back like any other, and NaN is never as near as it must be."""
    convert_checkpoint(source, tmp_path / "packed.safetensors", format="fp8")
    state = load_file(tmp_path / "packed.safetensors")
    state["blocks.0.ffn.0.weight"].view(torch.uint8)[3, 3] = 0x7F
    save_file(state, tmp_path / "packed.safetensors", METADATA)
    with pytest.raises(
        CheckpointError, match=r"'blocks\.0\.ffn\.0\.weight'.* has a relative error of nan in fp8.*damaged"
    ):
        convert_checkpoint(tmp_path / "packed.safetensors", tmp_path / "new.safetensors", format="fp8")
    assert not list(tmp_path.glob("new*"))


def test_what_was_written_wrongly_is_not_kept(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read back and compared with the source, so a fault of the quantiser cannot pass."""
    right = packing.quantize_nvfp4

    def wrong(weight: Tensor, rule: str, high_first: bool) -> NVFP4:
        return right(weight, rule, high_first=not high_first)

    monkeypatch.setattr(packing, "quantize_nvfp4", wrong)
    before = files(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"'blocks\.0\.self_attn\.q\.weight'.* has a relative error of .* in nvfp4"
    ):
        convert_checkpoint(source, tmp_path / "new.safetensors", format="nvfp4")
    assert files(tmp_path) == before


def test_a_layer_of_zeros_stays_zero(tmp_path: Path, weights: Tensors) -> None:
    """Nothing is divided by its largest magnitude."""
    name = "blocks.0.cross_attn.o.weight"
    save_file({**weights, name: torch.zeros_like(weights[name])}, tmp_path / "m.safetensors")
    for quant_format in FORMATS:
        convert_checkpoint(tmp_path / "m.safetensors", tmp_path / f"{quant_format}.safetensors", format=quant_format)
        assert not floats(tmp_path / f"{quant_format}.safetensors")[name].any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format": "int4"}, ValueError, "format 'int4' is unknown: choose one of bf16, fp8, nvfp4"),
        ({"rule": "best"}, ValueError, "rule 'best' is unknown"),
        ({"strength": float("nan")}, ValueError, "strength nan must be a finite number"),
        ({"target": "new.pt"}, ValueError, r"use a name that ends in \.safetensors"),
        ({"target": "no/new.safetensors"}, ValueError, r"folder .*no does not exist; create it"),
        (
            {"target": "source.safetensors", "overwrite": True},
            ValueError,
            "is a source of the conversion and cannot be its target",
        ),
        (
            {"target": "lora.safetensors", "overwrite": True},
            ValueError,
            "is a source of the conversion and cannot be its target",
        ),
        ({"target": "old.safetensors"}, FileExistsError, "exists already; choose another name, or allow"),
        ({"target": "folder.safetensors", "overwrite": True}, FileExistsError, "exists already"),
        ({"target": "busy.safetensors"}, FileExistsError, r"busy\.safetensors\.part exists.*delete it"),
        ({"source": "none.safetensors"}, FileNotFoundError, r"none\.safetensors does not exist"),
        ({"source": "lora.safetensors"}, CheckpointError, "is a LoRA, not a whole model"),
        ({"lora": "none.safetensors"}, FileNotFoundError, r"none\.safetensors does not exist"),
        ({"lora": "other.safetensors"}, CheckpointError, "width 256"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    tmp_path: Path, source: Path, lora: Path, change: dict[str, object], error: type[Exception], message: str
) -> None:
    """The message names the fault and the remedy, no weight is read, and the folder is as before."""
    (tmp_path / "old.safetensors").write_bytes(b"an older file")
    (tmp_path / "busy.safetensors.part").write_bytes(b"half a file")
    layer = "blocks.0.self_attn.q"
    save_file(
        {f"{layer}.lora_A.weight": torch.zeros(1, 256), f"{layer}.lora_B.weight": torch.zeros(256, 1)},
        tmp_path / "other.safetensors",
    )
    before = files(tmp_path)
    (tmp_path / "folder.safetensors").mkdir()
    arguments = {"source": source.name, "target": "new.safetensors", "lora": lora.name, "format": "nvfp4", **change}
    paths = {name: tmp_path / str(arguments.pop(name)) for name in ("source", "target")}
    loras = [LoraFile(tmp_path / str(arguments.pop("lora")), arguments.pop("strength", 1.0))]
    with pytest.raises(error, match=message):
        convert_checkpoint(**paths, **arguments, loras=loras, on_progress=lambda progress: pytest.fail(progress.name))
    (tmp_path / "folder.safetensors").rmdir()
    assert files(tmp_path) == before


def test_a_full_disk_is_an_error_before_any_work(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of the new file is known beforehand and compared with what is free."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"has 0\.00 GB free and the file needs 0\.00 GB; free some space"):
        convert_checkpoint(source, tmp_path / "new.safetensors", format="nvfp4")
    assert files(tmp_path) == before


def test_the_ordinary_wan_is_not_made_causal(tmp_path: Path, weights: Tensors) -> None:
    """A file that is known to be the bidirectional Wan never gets our mark."""
    save_file(weights, tmp_path / "wan2.2_ti2v_5B_fp16.safetensors")
    with pytest.raises(CheckpointError, match="ordinary"):
        convert_checkpoint(tmp_path / "wan2.2_ti2v_5B_fp16.safetensors", tmp_path / "n.safetensors", format="fp8")


def test_the_command_line_converts_and_reports(tmp_path: Path, source: Path, lora: Path) -> None:
    """`longlive convert IN OUT …` reports sizes, the coverage of the LoRA, and errors by kind of layer."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [str(source), str(tmp_path / "new.safetensors"), "--format", "fp8", "--lora", str(lora)]
    lines = list(convert_lines(parser.parse_args(words)))
    assert lines[0].startswith(f"{tmp_path / 'new.safetensors'}: fp8, ")
    assert lines[1].startswith("20 layers quantised; ")
    assert lines[2].startswith("lora merged: 20 of 20 layers; rank 4, alpha 2")
    assert [line.split()[0] for line in lines[4:]] == [
        *(f"{attention}.{part}" for attention in ("self_attn", "cross_attn") for part in "qkvo"),
        "ffn.0",
        "ffn.2",
        "all",
    ]
    with pytest.raises(FileExistsError):
        list(convert_lines(parser.parse_args(words)))
    assert inspect_checkpoint(tmp_path / "new.safetensors").format == "fp8"
    lines = list(convert_lines(parser.parse_args([*words[:2], "--format", "bf16", "--overwrite"])))
    assert lines[-1] == "no value differs from the source"
