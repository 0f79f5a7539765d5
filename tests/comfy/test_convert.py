"""LongLive Convert Checkpoint in the real server: what it writes is what both loaders read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.model import CausalWan, WanConfig
from longlive.longlive_core.weights import convert_checkpoint, inspect_checkpoint
from longlive.longlive_core.weights.weight_reader import open_weights
from safetensors.torch import load_file, save_file

from .graphs import SHORT, Prompt, in_host, latent, latents, node, save_model, say_mini
from .host import Host, Refused

pytestmark = pytest.mark.comfy

SOURCE = "mini_to_convert.safetensors"
# A tiny transformer whose sizes core's loader takes for Wan 2.2 5B.
TINY = WanConfig(dim=128, ffn_dim=256, num_heads=1, num_layers=1, freq_dim=256, text_dim=4096, text_len=512)
DEQUANTISE = """
import comfy.sd, torch
from safetensors.torch import save_file
model = comfy.sd.load_diffusion_model(sys.argv[1]).model
layers = model.diffusion_model.named_modules()
weights = {name: layer.weight for name, layer in layers if hasattr(layer, "quant_format")}
save_file({name: weight.dequantize().float().contiguous() for name, weight in weights.items()}, sys.argv[2])
print(type(model).__name__)
"""


@pytest.fixture(scope="module")
def folder(comfy: Host) -> Path:
    """models/diffusion_models, with Mini's transformer in it."""
    save_model(comfy, SOURCE, dict(load_mini().model.state_dict()), say_mini())
    return comfy.base / "models" / "diffusion_models"


def convert(output: str = "", form: str = "nvfp4") -> Prompt:
    inputs = {"model_name": SOURCE, "format": form, "lora_name": "none", "strength": 1.0, "output_name": output}
    return {"1": node("LongLiveConvertCheckpoint", **inputs)}


@pytest.mark.parametrize("form", ["nvfp4", "fp8"])
def test_a_converted_model_makes_films(comfy: Host, folder: Path, form: str) -> None:
    """The new file stands beside the source, named after it; its film is near the film of the source."""
    run = comfy.run(convert(form=form), 60)
    assert run.ok, run.error
    assert "60 layers quantised" in run.outputs["1"]["text"][0]
    assert run.progress["1"][-1]["value"] == run.progress["1"][-1]["max"]
    name = f"mini_to_convert_{form}.safetensors"
    assert inspect_checkpoint(folder / name).format == form
    films = []
    for model in (SOURCE, name):
        prompt = latent(SHORT, 5, model=["9", 0])
        prompt["9"] = node("LongLiveModelLoader", model_name=model, precision="auto")
        run = comfy.run(prompt, 60)
        assert run.ok, run.error
        films.append(latents(comfy, run))
    far = ((films[1] - films[0]).norm() / films[0].norm()).item()
    assert 0 < far < 0.8


@pytest.mark.parametrize("form", ["nvfp4", "fp8"])
def test_core_reads_the_same_weights(comfy: Host, tmp_path: Path, form: str) -> None:  # noqa: ARG001
    """Core's Load Diffusion Model takes the file for Wan 2.2 and dequantises each layer to the numbers we compared."""
    torch.manual_seed(1)
    tensors = {name: torch.randn_like(value).bfloat16() for name, value in CausalWan(TINY).state_dict().items()}
    save_file(tensors, tmp_path / "tiny.safetensors")
    convert_checkpoint(tmp_path / "tiny.safetensors", tmp_path / "new.safetensors", format=form)
    kind = in_host(DEQUANTISE, tmp_path / "new.safetensors", tmp_path / "core.safetensors")
    assert kind.split()[-1] == "WAN22"
    ours, core = open_weights(tmp_path / "new.safetensors"), load_file(tmp_path / "core.safetensors")
    assert core.keys() == ours.part_names.keys()
    for layer, weight in core.items():
        torch.testing.assert_close(weight, ours.read_float(f"{layer}.weight"), rtol=1e-6, atol=0)


def test_a_cancel_leaves_nothing(comfy: Host, folder: Path) -> None:
    """Interrupted at its first progress, the conversion ends and no file, whole or half, is there."""
    before = {path.name for path in folder.iterdir()}
    run = comfy.run(
        convert("cancelled"), 60, on_event=lambda _, event: event.type == "progress_state" and comfy.interrupt()
    )
    assert run.interrupted
    assert {path.name for path in folder.iterdir()} == before


def test_nothing_is_replaced(comfy: Host, folder: Path) -> None:
    """A name that is taken ends the run with a remedy; a name with folders in it is not queued."""
    (folder / "taken.safetensors").write_bytes(b"someone's work")
    run = comfy.run(convert("taken"), 60)
    assert run.error and "exists already; choose another name" in run.error["exception_message"]
    assert (folder / "taken.safetensors").read_bytes() == b"someone's work"
    for name in ("../taken", "/tmp/taken", "a\\b"):
        with pytest.raises(Refused, match="must be a name without folders"):
            comfy.queue(convert(name))
