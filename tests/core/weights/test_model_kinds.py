"""Model files of every packaging are read by what is in them, or one error says what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.weights import (
    CheckpointError,
    LoraFile,
    convert_checkpoint,
    inspect_checkpoint,
    load_checkpoint,
    open_source,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from .lora_files import HALVES, LINEARS, WEIGHTS, Tensors, plain, save, truth

CAUSAL = {"longlive": json.dumps({"causal": True})}
HALF: Tensors = {n: v.bfloat16() for n, v in WEIGHTS.items()}


def save_model(path: Path, tensors: Tensors = HALF, metadata: dict[str, str] | None = None) -> Path:
    save_file({n: v.clone().contiguous() for n, v in tensors.items()}, path, metadata)
    return path


def assert_loads(path: Path) -> None:
    """Asserts that every weight of the file is that of `HALF`."""
    state = load_checkpoint(path).state_dict()
    assert state.keys() == WEIGHTS.keys()
    assert all(torch.equal(state[n], v) for n, v in HALF.items())


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "ema.", "net.", "student.", "model_ema.module.", "pipe.dit._orig_mod.", "base_model.model.", "m0."],
)
def test_any_prefix_is_read_through(tmp_path: Path, prefix: str) -> None:
    """The first of Wan's own names ends the prefix, whatever it is."""
    assert_loads(save_model(tmp_path / "m.safetensors", {prefix + n: v for n, v in HALF.items()}))


def test_wrappers_within_names_are_read_through(tmp_path: Path) -> None:
    """Compiled or checkpointed blocks have a part of their own in each name."""
    names = {n: n.replace("blocks.1.", "blocks.1._checkpoint_wrapped_module._orig_mod.") for n in HALF}
    assert_loads(save_model(tmp_path / "m.safetensors", {names[n]: v for n, v in HALF.items()}))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: {"state_dict": t},
        lambda t: {"module": t},
        lambda t: {**t, "step": 100},
        lambda t: {"epoch": 3, "model_state_dict": t, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda t: {"ema_state_dict": {f"module.{n}": v for n, v in t.items()}, "args": None},
        lambda t: {"state_dict": {f"model.diffusion_model.{n}": v for n, v in t.items()}, "global_step": 7},
        lambda t: {"dit": t, "loss": 0.5, "name": "mine"},
        lambda t: {"generator_ema": {"state_dict": t}},
    ],
)
@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_any_wrapper_is_read_through(tmp_path: Path, wrap: Callable[[Tensors], object], name: str) -> None:
    """The dictionary that has the model is found; numbers beside it mean nothing; the file's name decides nothing."""
    torch.save(wrap(HALF), tmp_path / name)
    assert_loads(tmp_path / name)


def shards(folder: Path, count: int, *, index: bool = True) -> list[Path]:
    folder.mkdir()
    names, files = list(HALF), []
    where: dict[str, str] = {}
    for i in range(count):
        part = names[i::count]
        files.append(folder / f"diffusion_pytorch_model-{i + 1:05}-of-{count:05}.safetensors")
        where |= dict.fromkeys(part, files[-1].name)
        save_model(files[-1], {n: HALF[n] for n in part}, {"format": "pt"})
    if index:
        text = json.dumps({"metadata": {"total_size": 1}, "weight_map": where})
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    return files


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("count", [2, 3])
def test_a_sharded_model_is_one_model(tmp_path: Path, count: int, index: bool) -> None:
    """Any part, the index or the folder names the whole model; parts find each other without an index too."""
    for path in (*shards(tmp_path / "s", count, index=index), tmp_path / "s"):
        assert_loads(path)
    if index:
        assert_loads(tmp_path / "s" / "diffusion_pytorch_model.safetensors.index.json")


def test_each_part_marks_its_own_quantised_layers(tmp_path: Path) -> None:
    """The marks of all parts count, not those of the last one alone."""
    parts = [tmp_path / f"m-{i:05}-of-00002.safetensors" for i in (1, 2)]
    for i, part in enumerate(parts):
        layers = {"layers": {f"blocks.{i}.self_attn.q": {"format": "float8_e4m3fn"}}}
        save_file({f"t{i}": torch.zeros(1)}, part, {"_quantization_metadata": json.dumps(layers)})
    marked = json.loads(open_source(parts[1]).metadata["_quantization_metadata"])["layers"]
    assert set(marked) == {"blocks.0.self_attn.q", "blocks.1.self_attn.q"}


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """An incomplete download is not half a model."""
    parts = shards(tmp_path / "s", 3)
    parts[1].unlink()
    for path in (parts[0], tmp_path / "s", tmp_path / "s" / "diffusion_pytorch_model.safetensors.index.json"):
        with pytest.raises(CheckpointError, match=r"lacks.*00002-of-00003"):
            inspect_checkpoint(path)


def test_the_official_folder_of_wan_is_refused(tmp_path: Path) -> None:
    """The config.json of a sharded model says that it is the ordinary Wan."""
    part, *_ = shards(tmp_path / "s", 2)
    (tmp_path / "s" / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 128}))
    with pytest.raises(CheckpointError, match="bidirectional"):
        inspect_checkpoint(part)


def test_the_folder_names_a_model_of_diffusers_files(tmp_path: Path) -> None:
    """`diffusion_pytorch_model` is the name of every model; the folder's is its own."""
    parts = shards(tmp_path / "Wan2.2-TI2V-5B", 2)
    for path in (parts[0], parts[0].parent):
        with pytest.raises(CheckpointError, match="bidirectional"):
            inspect_checkpoint(path)


def test_a_part_of_the_source_is_no_target(tmp_path: Path) -> None:
    """Converting a folder into one of its own parts would destroy it."""
    parts = shards(tmp_path / "s", 2)
    before = parts[1].read_bytes()
    with pytest.raises(ValueError, match="is a source"):
        convert_checkpoint(tmp_path / "s", parts[1], format="fp8", overwrite=True)
    assert parts[1].read_bytes() == before


@pytest.mark.parametrize(
    "name",
    ["my_wan2.2_ti2v_5B_v2", "Wan22-TI2V-5B", "FastWan2.2-TI2V-5B", "wan2.2-ti2v-5b-turbo", "Wan2_2_5B_TI2V_fp8"],
)
def test_the_ordinary_wan_is_known_by_more_names(tmp_path: Path, name: str) -> None:
    """The names under which the bidirectional model and its distilled kin are passed on."""
    with pytest.raises(CheckpointError, match="bidirectional"):
        inspect_checkpoint(save_model(tmp_path / f"{name}.safetensors"))


def test_convert_stamps_causal_only_what_is_known_to_be(tmp_path: Path) -> None:
    """A source that does not say stays one that does not say, unless the user says so."""
    source = save_model(tmp_path / "style.safetensors")
    done = convert_checkpoint(source, tmp_path / "a.safetensors", format="fp8")
    assert inspect_checkpoint(tmp_path / "a.safetensors").causal is None
    assert any("--causal" in note for note in done.notes)
    convert_checkpoint(source, tmp_path / "b.safetensors", format="fp8", causal=True)
    assert inspect_checkpoint(tmp_path / "b.safetensors").causal is True
    known = save_model(tmp_path / "known.safetensors", metadata=CAUSAL)
    assert convert_checkpoint(known, tmp_path / "c.safetensors", format="fp8").notes == ()
    assert inspect_checkpoint(tmp_path / "c.safetensors").causal is True


# fp8


def fp8_model(path: Path, scale: str, *, mark: bool, dtype: torch.dtype = torch.float8_e4m3fn) -> Tensors:
    """Writes the linear layers of the blocks in fp8; returns the exact weights of the layers that it stands for."""
    limit = torch.finfo(dtype).max
    tensors, exact = dict(HALF), {}
    for n in HALVES:
        weight = WEIGHTS[f"{n}.weight"]
        size = weight.abs().amax(1, keepdim=True) if scale.startswith("row") else weight.abs().max()
        size = size / limit
        codes = (weight / size).to(dtype)
        tensors |= {f"{n}.weight": codes, f"{n}.weight_scale": size.flatten() if scale == "rows, flat" else size}
        exact[n] = codes.float() * size
        if mark:
            form = {"format": "float8_e4m3fn" if dtype == torch.float8_e4m3fn else "float8_e5m2"}
            tensors[f"{n}.comfy_quant"] = torch.tensor(list(json.dumps(form).encode()), dtype=torch.uint8)
    save_model(path, tensors, CAUSAL)
    return exact


@pytest.mark.parametrize("scale", ["row", "rows, flat", "tensor"])
@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_fp8_with_any_scale_is_read(tmp_path: Path, scale: str, mark: bool, dtype: torch.dtype) -> None:
    """A scale a row or a tensor, with ComfyUI's mark or without: codes times scale, in films and conversions alike."""
    exact = fp8_model(tmp_path / "m.safetensors", scale, mark=mark, dtype=dtype)
    model = load_checkpoint(tmp_path / "m.safetensors", dtype=torch.float32)
    convert_checkpoint(tmp_path / "m.safetensors", tmp_path / "bf16.safetensors", format="bf16")
    convert_checkpoint(tmp_path / "m.safetensors", tmp_path / "fp8.safetensors", format="fp8")
    flat = load_file(tmp_path / "bf16.safetensors")
    again = load_checkpoint(tmp_path / "fp8.safetensors", dtype=torch.float32)
    for n, weight in exact.items():
        layer, second = model.get_submodule(n), again.get_submodule(n)
        torch.testing.assert_close(layer.dequantized_weight(torch.float32), weight, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(flat[f"{n}.weight"].float(), weight, rtol=8e-3, atol=1e-6)
        error = (second.dequantized_weight(torch.float32) - weight).norm() / weight.norm()
        assert error < (1e-6 if scale == "tensor" else 0.04)


def test_fp8_outside_linear_layers_is_an_error_about_the_dtype(tmp_path: Path) -> None:
    """Norms and biases in fp8 have lost what they were; the error says dtype, not shape, and what to do."""
    save_model(tmp_path / "m.safetensors", {n: v.to(torch.float8_e4m3fn) for n, v in HALF.items()}, CAUSAL)
    with pytest.raises(CheckpointError, match=r"of another dtype: .*F8_E4M3.*use the bf16") as error:
        inspect_checkpoint(tmp_path / "m.safetensors")
    assert "of another shape" not in str(error.value)


# Several LoRAs


def second(path: Path) -> tuple[Path, Tensors]:
    """Another LoRA, and what it adds."""
    save(path, lambda n, d, u: plain(n, d.flip(0), -u))
    return path, {n: -up @ down.flip(0) for n, (down, up) in HALVES.items()}


def test_two_loras_are_merged_in_order(tmp_path: Path) -> None:
    """W + A + B in float32, each with its own strength, rounded once."""
    source = save_model(tmp_path / "m.safetensors", WEIGHTS, CAUSAL)
    a, (b, adds) = save(tmp_path / "a.safetensors", plain), second(tmp_path / "b.safetensors")
    done = convert_checkpoint(
        source, tmp_path / "out.safetensors", format="bf16", loras=[LoraFile(a, 0.5), LoraFile(b, -2.0)]
    )
    assert [report.text()[:8] for report in done.loras] == ["20 of 20", "20 of 20"]
    made = load_file(tmp_path / "out.safetensors")
    for n, first in truth(0.5).items():
        exact = WEIGHTS[f"{n}.weight"] + first - 2 * adds[n]
        assert ((made[f"{n}.weight"].float() - exact).norm() / exact.norm()).item() < 3e-3


def test_a_lora_that_is_merged_already_is_asked_about(tmp_path: Path) -> None:
    """The file says which LoRAs it has; adding one of them again is an error with the ways out."""
    source = save_model(tmp_path / "m.safetensors", metadata=CAUSAL)
    a, (b, _) = save(tmp_path / "a.safetensors", plain), second(tmp_path / "b.safetensors")
    merged = tmp_path / "merged.safetensors"
    convert_checkpoint(source, merged, format="bf16", loras=[LoraFile(a), LoraFile(b)])
    for lora in (a, b):
        with pytest.raises(CheckpointError, match=rf"has the lora {lora.name} merged.*leave it out"):
            convert_checkpoint(merged, tmp_path / "twice.safetensors", format="bf16", loras=[LoraFile(lora)])
    other = second(tmp_path / "c.safetensors")[0]
    convert_checkpoint(merged, tmp_path / "thrice.safetensors", format="bf16", loras=[LoraFile(other)])
    with pytest.raises(CheckpointError, match=r"a\.safetensors merged"):
        convert_checkpoint(
            tmp_path / "thrice.safetensors", tmp_path / "x.safetensors", format="bf16", loras=[LoraFile(a)]
        )


@pytest.mark.parametrize(
    ("text", "name", "strength"),
    [
        ("a.safetensors", "a.safetensors", None),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a.safetensors:-1", "a.safetensors", -1.0),
        ("a.safetensors:1e-1", "a.safetensors", 0.1),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", None),
        (r"C:\loras\a.safetensors:.5", r"C:\loras\a.safetensors", 0.5),
        ("C:/loras/a", "C:/loras/a", None),
        ("C:1", "C:1", None),
        ("folder:2/a.pt", "folder:2/a.pt", None),
    ],
)
def test_a_strength_follows_the_last_colon(text: str, name: str, strength: float | None) -> None:
    """A path may have colons of its own, as on Windows."""
    assert LoraFile.parse(text, None) == LoraFile(Path(name), 1.0 if strength is None else strength)
    assert LoraFile.parse(text, 0.3).strength == (0.3 if strength is None else strength)


def test_a_file_whose_name_ends_in_a_number_is_that_file(tmp_path: Path) -> None:
    """What exists is a name, not a strength."""
    (tmp_path / "style:2").touch()
    assert LoraFile.parse(str(tmp_path / "style:2"), None) == LoraFile(tmp_path / "style:2", 1.0)


@pytest.mark.parametrize("text", ["a.safetensors:loud", "a.safetensors:nan", "a.safetensors:", "a.safetensors:inf"])
def test_a_strength_that_is_no_number_is_named(text: str) -> None:
    """Neither read as a path nor as 1."""
    with pytest.raises(ValueError, match=r"strength"):
        LoraFile.parse(text, None)


@pytest.mark.parametrize("text", [":0.5", "loras/:0.5", r"C:\loras\:0.5"])
def test_a_strength_without_a_file_is_refused(text: str) -> None:
    """A strength behind a folder's name or behind nothing is that of no file."""
    with pytest.raises(ValueError, match=r"names no file .* write FILE:"):
        LoraFile.parse(text, None)


def test_a_folder_of_peft_has_a_strength(tmp_path: Path) -> None:
    """The name of a folder that exists may end in a slash."""
    assert LoraFile.parse(f"{tmp_path}/:0.5", None) == LoraFile(tmp_path, 0.5)


# Files


@pytest.mark.linux
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Reading it would wait for a writer forever."""
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match="no regular file"):
        open_source(tmp_path / "pipe.safetensors")


@pytest.mark.linux
def test_overwriting_a_link_writes_its_target(tmp_path: Path) -> None:
    """The link stays a link, and the file behind it is the new one."""
    source = save_model(tmp_path / "m.safetensors", metadata=CAUSAL)
    (tmp_path / "store").mkdir()
    real, link = tmp_path / "store" / "real.safetensors", tmp_path / "link.safetensors"
    real.write_bytes(b"old")
    link.symlink_to(real)
    convert_checkpoint(source, link, format="fp8", overwrite=True)
    assert link.is_symlink()
    assert inspect_checkpoint(real).format == "fp8"
    assert sorted(p.name for p in tmp_path.rglob("*.safetensors*")) == ["link.safetensors", "m.safetensors", real.name]


@pytest.mark.linux
def test_a_name_may_have_255_characters(tmp_path: Path) -> None:
    """The file that is being written has a shorter name where `.part` does not fit."""
    source = save_model(tmp_path / "m.safetensors", metadata=CAUSAL)
    target = tmp_path / f"{'n' * 243}.safetensors"
    convert_checkpoint(source, target, format="fp8")
    assert inspect_checkpoint(target).format == "fp8"


def scales(path: Path) -> dict[str, Tensor]:
    return {n: v for n, v in load_file(path).items() if n.endswith("weight_scale")}


def test_a_scale_a_row_becomes_one_that_comfyui_reads(tmp_path: Path) -> None:
    """ComfyUI's fp8 has one scale; a conversion to fp8 never copies a scale a row."""
    fp8_model(tmp_path / "m.safetensors", "row", mark=True)
    convert_checkpoint(tmp_path / "m.safetensors", tmp_path / "out.safetensors", format="fp8")
    assert {v.shape for v in scales(tmp_path / "out.safetensors").values()} == {torch.Size([])}
    assert len(scales(tmp_path / "out.safetensors")) == len(HALVES) == len(LINEARS) - 6
