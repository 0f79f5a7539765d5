"""LongLive's objects in core's nodes and core's in LongLive's: LoRAs, text, pixels and quantised files."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.weights import read_lora
from PIL import Image
from torch import Tensor

from .graphs import (
    MINI,
    SHORT,
    Prompt,
    film,
    film_frames,
    in_host,
    latent,
    latents,
    node,
    save_lora,
    save_model,
    say_mini,
)
from .host import Host

pytestmark = pytest.mark.comfy

SEED = 5
LORA = "random.safetensors"
DISTILLATION = """
data = "{data}"
[trainer]
steps = 3
[dmd]
rank = 4
alpha = 8
[dmd.generator]
lr = 0.01
every = 1
[dmd.critic]
lr = 0.01
"""
QUANTISE = """
import json
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

source, target, form = sys.argv[1:]
state = load_file(source)
for name in [name for name in state if name.startswith("blocks.") and name.endswith(".weight")]:
    weight = state[name]
    if weight.dim() != 2:
        continue
    scale = {} if form == "nvfp4" else {"scale": weight.abs().max() / 448}
    packed = QuantizedTensor.from_float(weight.bfloat16(), QUANT_ALGOS[form]["comfy_tensor_layout"], **scale)
    del state[name]
    state |= packed.state_dict(name)
    note = json.dumps({"format": form}).encode()
    state[name.removesuffix("weight") + "comfy_quant"] = torch.tensor(list(note), dtype=torch.uint8)
with safe_open(source, framework="pt") as file:
    metadata = file.metadata()
save_file({name: tensor.contiguous() for name, tensor in state.items()}, target, metadata)
print(sum(name.endswith("comfy_quant") for name in state))
"""


@pytest.fixture(scope="module")
def lora(comfy: Host) -> str:
    """A random LoRA for every linear layer of Mini's blocks."""
    layers = {
        name: (module.out_features, module.in_features)
        for name, module in load_mini().model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("blocks.")
    }
    return save_lora(comfy, LORA, layers)


def through(comfy: Host, **loader: object) -> Tensor:
    """Mini's latents with a node between model and sampler; `kind` names it."""
    prompt = latent(SHORT, SEED, model=["9", 0])
    prompt["9"] = node(**loader)
    return made(comfy, prompt)


def made(comfy: Host, prompt: Prompt) -> Tensor:
    run = comfy.run(prompt, 60)
    assert run.ok, run.error
    return latents(comfy, run)


def distance(a: Tensor, b: Tensor) -> float:
    """Relative L2."""
    return ((a - b).norm() / b.norm()).item()


def test_a_lora_is_the_same_however_it_is_loaded(comfy: Host, lora: str) -> None:
    """Core's LoRA loader, LongLive DMD LoRA in both modes, and a file with the LoRA merged make the same film."""
    plain = made(comfy, latent(SHORT, SEED))
    model: dict[str, object] = {"model": [MINI, 0], "lora_name": lora}
    core = through(comfy, kind="LoraLoaderModelOnly", **model, strength_model=0.8)
    merge = through(comfy, kind="LongLiveDMDLora", **model, strength=0.8, mode="merge")
    bypass = through(comfy, kind="LongLiveDMDLora", **model, strength=0.8, mode="bypass")
    state = read_lora(comfy.base / "models" / "loras" / lora).merge(load_mini().model.state_dict(), 0.8)
    name = save_model(comfy, "merged.safetensors", state, say_mini())
    file = through(comfy, kind="LongLiveModelLoader", model_name=name, precision="fp32")
    assert distance(core, plain) > 0.05
    assert distance(merge, core) < 1e-5
    assert distance(bypass, core) < 1e-3
    assert distance(file, core) < 1e-4


def test_a_distilled_lora_is_the_same_however_it_is_loaded(comfy: Host, tmp_path: Path) -> None:
    """The LoRA that `longlive train dmd` writes makes the same film through core's loader and through our node."""
    (tmp_path / "one.txt").write_text("Shot 1 (1 block): a big red ring sways on the left against a navy wall\n")
    (tmp_path / "dmd.toml").write_text(DISTILLATION.format(data=(tmp_path / "one.txt").as_posix()))
    assert main(["train", "dmd", str(tmp_path / "dmd.toml"), "--out", str(tmp_path / "out")]) == 0
    for name in ("lora", "lora_comfyui"):
        target = comfy.base / "models" / "loras" / f"distilled_{name}.safetensors"
        copyfile(tmp_path / "out" / f"{name}.safetensors", target)
    plain = made(comfy, latent(SHORT, SEED))
    model: dict[str, object] = {"model": [MINI, 0], "lora_name": "distilled_lora.safetensors"}
    named = {**model, "lora_name": "distilled_lora_comfyui.safetensors"}
    core = through(comfy, kind="LoraLoaderModelOnly", **named, strength_model=1.0)
    merge = through(comfy, kind="LongLiveDMDLora", **model, strength=1.0, mode="merge")
    bypass = through(comfy, kind="LongLiveDMDLora", **model, strength=1.0, mode="bypass")
    assert distance(core, plain) > 0.01
    assert distance(merge, core) < 1e-5
    assert distance(bypass, core) < 1e-3


def test_two_loras_and_strength_zero(comfy: Host, lora: str) -> None:
    """A LoRA of strength 0 changes nothing, and taking it away again leaves the plain model."""
    plain = made(comfy, latent(SHORT, SEED))
    off = through(comfy, kind="LongLiveDMDLora", model=[MINI, 0], lora_name=lora, strength=0.0, mode="merge")
    assert torch.equal(off, plain)
    prompt = latent(SHORT, SEED)
    prompt["7"]["_meta"] = {"title": "drawn after the LoRA"}
    assert torch.equal(made(comfy, prompt), plain)


def test_core_encodes_and_decodes_with_mini(comfy: Host, tmp_path: Path) -> None:
    """Core's VAE Encode and VAE Decode bring a picture of Mini's world back, and core's text node reads its CLIP."""
    run = comfy.run(film(SHORT, SEED), 60)
    frame = film_frames(comfy, run)[-1]
    path = tmp_path / "frame.png"
    Image.fromarray(frame.numpy()).save(path)
    prompt = {
        MINI: node("LongLiveMini"),
        "2": node("LoadImage", image=comfy.upload_image(path)),
        "3": node("VAEEncode", pixels=["2", 0], vae=[MINI, 2]),
        "4": node("VAEDecode", samples=["3", 0], vae=[MINI, 2]),
        "5": node("SaveImage", images=["4", 0], filename_prefix="round"),
        "6": node("CLIPTextEncode", clip=[MINI, 1], text="a big red ring"),
        "7": node("ConditioningZeroOut", conditioning=["6", 0]),
        "8": node("VAEDecodeTiled", samples=["3", 0], vae=[MINI, 2], **TILES),
        "9": node("SaveImage", images=["8", 0], filename_prefix="tiled"),
    }
    run = comfy.run(prompt, 60)
    assert run.ok, run.error
    for id in ("5", "9"):
        (saved,) = run.outputs[id]["images"]
        back = torch.frombuffer(bytearray(Image.open(comfy.file(saved)).convert("RGB").tobytes()), dtype=torch.uint8)
        error = (back.view(128, 128, 3).float() - frame.float()).square().mean()
        psnr = 10 * torch.log10(255**2 / error).item()
        assert psnr > 25


TILES = {"tile_size": 64, "overlap": 16, "temporal_size": 64, "temporal_overlap": 8}


@pytest.mark.parametrize("form", ["float8_e4m3fn", "nvfp4"])
def test_a_quantised_file_makes_films(comfy: Host, form: str) -> None:
    """A file in ComfyUI's fp8 or NVFP4 format loads with LongLive Model Loader and samples what the floats do, nearly.

    Its LoRA runs beside the quantised weights.
    """
    folder = comfy.base / "models" / "diffusion_models"
    source = save_model(comfy, "mini.safetensors", dict(load_mini().model.state_dict()), say_mini())
    layers = int(in_host(QUANTISE, folder / source, folder / f"{form}.safetensors", form))
    assert layers == 6 * 10
    floats = through(comfy, kind="LongLiveModelLoader", model_name=source, precision="fp32")
    packed = through(comfy, kind="LongLiveModelLoader", model_name=f"{form}.safetensors", precision="auto")
    assert packed.isfinite().all()
    far = distance(packed, floats)
    assert 0 < far < 0.8


def test_a_lora_runs_beside_quantised_weights(comfy: Host, lora: str) -> None:
    """On a quantised file `auto` means bypass, says so, and the LoRA changes the film as it does on floats."""
    prompt = latent(SHORT, SEED, model=["10", 0])
    prompt["9"] = node("LongLiveModelLoader", model_name="float8_e4m3fn.safetensors", precision="auto")
    without = through(comfy, kind="LongLiveModelLoader", model_name="float8_e4m3fn.safetensors", precision="auto")
    prompt["10"] = node("LongLiveDMDLora", model=["9", 0], lora_name=lora, strength=0.8, mode="auto")
    run = comfy.run(prompt, 60)
    assert run.ok, run.error
    assert run.outputs["10"]["text"][0].startswith("bypass: ")
    assert distance(latents(comfy, run), without) > 0.05
