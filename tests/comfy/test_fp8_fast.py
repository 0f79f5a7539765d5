"""`fp8 fast` in the real server: its films are those of `--fp8`, with and without a LoRA, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.weights import convert_checkpoint
from safetensors.torch import load_file
from torch import Tensor

from .graphs import SHORT, Prompt, in_host, latent, latents, node, save_lora, save_model, say_mini
from .host import ROOT, Host

pytestmark = pytest.mark.comfy

SEED, STRENGTH = 5, 0.8
# In ComfyUI's Python, whose PyTorch is the server's: the films of the command line.
RENDER = """
import importlib.util
from pathlib import Path
root, base = Path(sys.argv[1]), Path(sys.argv[2])
spec = importlib.util.spec_from_file_location("longlive", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["longlive"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.weights import LoraFile
from safetensors.torch import save_file
models, loras, vae, films = base / "models" / "diffusion_models", base / "models" / "loras", load_mini().vae, {}
for name in ("fp32", "fp8"):
    for lora in ((), (LoraFile(loras / "fast.safetensors", float(sys.argv[4])),)):
        settings = RenderSettings(
            base / "film.txt", base / "film.mp4", model=str(models / f"fast_{name}.safetensors"), loras=lora, fp8=True,
            seed=int(sys.argv[3]), seam="plain", take=False,
        )
        job = Job(settings)
        blocks = torch.cat([block.latents for block in job.film.run(None, None)], dim=2)
        job.render.discard()
        films[f"{name} lora" if lora else name] = vae.denormalise(blocks).contiguous()
save_file(films, base / "films.safetensors")
"""
MEMORY = """
import importlib, importlib.util
from pathlib import Path
root, base = Path(sys.argv[1]), Path(sys.argv[2])
cli.base_directory = str(base)
import torch
import folder_paths, comfy.model_management
spec = importlib.util.spec_from_file_location("pack", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
loaders = importlib.import_module("pack.nodes.loaders")
fingerprint = importlib.import_module("pack.nodes.fingerprint").weights_fingerprint
model = loaders.ModelLoader.execute("fast_fp32.safetensors", "fp8 fast").args[0]
layer = model.model.diffusion_model.blocks[0].ffn[0]
x, identity = torch.randn(3, layer.in_features), fingerprint(model)
comfy.model_management.load_models_gpu([model])
first = layer(x)
assert model.loaded_size() == model.model_size(), "not all of it is loaded"
model.partially_unload(torch.device("cpu"), 1e32)
assert torch.equal(layer(x), first), "offloaded"
comfy.model_management.unload_all_models()
comfy.model_management.load_models_gpu([model])
assert torch.equal(layer(x), first), "loaded again"
assert fingerprint(model) == identity, "the same weights are others once they were loaded"
weights = layer.fp8.weight, layer.fp8.bias
sizes = importlib.import_module("comfy.memory_management")
buffer = torch.empty(sizes.vram_aligned_size(list(weights)), dtype=torch.uint8)
comfy.model_management.cast_to_gathered(list(weights), buffer)
moved, bias = sizes.interpret_gathered_like(list(weights), buffer)
assert torch.equal(moved.dequantize(), weights[0].dequantize()) and torch.equal(bias, weights[1]), "DynamicVRAM"
floats = loaders.ModelLoader.execute("fast_fp32.safetensors", "auto").args[0]
assert fingerprint(floats) != identity, "a take would not see the other precision"
print(model.model_size(), floats.model_size())
"""


@pytest.fixture(scope="module")
def films(comfy: Host) -> dict[str, Tensor]:
    """Mini's transformer in several formats, a LoRA, and the command line's films with them."""
    folder, mini = comfy.base / "models" / "diffusion_models", load_mini().model
    save_model(comfy, "fast_fp32.safetensors", dict(mini.state_dict()), say_mini())
    for form in ("fp8", "nvfp4"):
        convert_checkpoint(folder / "fast_fp32.safetensors", folder / f"fast_{form}.safetensors", format=form)
    linears = {n: m for n, m in mini.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("blocks.")}
    save_lora(comfy, "fast.safetensors", {n: (m.out_features, m.in_features) for n, m in linears.items()})
    (comfy.base / "film.txt").write_text(SHORT)
    in_host(RENDER, ROOT, comfy.base, SEED, STRENGTH)
    return load_file(comfy.base / "films.safetensors")


def fast(name: str, lora: str | None = None) -> Prompt:
    """A film through the loader; lora: the mode of LongLive DMD LoRA, or `core` for core's loader."""
    prompt = latent(SHORT, SEED, model=["9" if lora is None else "10", 0])
    prompt["9"] = node("LongLiveModelLoader", model_name=f"fast_{name}.safetensors", precision="fp8 fast")
    file: dict[str, object] = {"model": ["9", 0], "lora_name": "fast.safetensors"}
    if lora == "core":
        prompt["10"] = node("LoraLoaderModelOnly", **file, strength_model=STRENGTH)
    elif lora is not None:
        prompt["10"] = node("LongLiveDMDLora", **file, strength=STRENGTH, mode=lora)
    return prompt


@pytest.mark.parametrize("lora", [None, "auto", "core"])
@pytest.mark.parametrize("name", ["fp32", "fp8"])
def test_a_film_is_the_command_lines(
    comfy: Host, films: dict[str, Tensor], name: str, lora: str | None, tell: Callable[[str, str], None]
) -> None:
    """To the bit, of floats and of a file in FP8; a LoRA is beside the layers, also one of core's loader."""
    run = comfy.run(fast(name, lora), 60)
    assert run.ok, run.error
    wanted = films[name if lora is None else f"{name} lora"]
    made = latents(comfy, run)
    tell(f"fp8 fast, {name}, lora {lora}", f"largest difference {(made - wanted).abs().max():.2e}")
    assert torch.equal(made, wanted)
    if "9" in run.outputs:  # a cached node reports nothing
        assert "no FP8 products" in run.outputs["9"]["text"][0]
    if lora == "auto":
        assert run.outputs["10"]["text"][0].startswith("bypass: 60 of 60 layers")


@pytest.mark.parametrize(
    ("name", "lora", "told"),
    [("nvfp4", None, "has layers in nvfp4 (U8"), ("fp32", "merge", "set mode of LongLive DMD LoRA to auto or bypass")],
)
@pytest.mark.usefixtures("films")
def test_what_would_be_rounded_twice_is_refused(comfy: Host, name: str, lora: str | None, told: str) -> None:
    """The error names what to do, and no film is made."""
    run = comfy.run(fast(name, lora), 60)
    assert not run.ok and told in str(run.error)


@pytest.mark.usefixtures("films")
def test_the_host_loads_and_frees_these_weights(comfy: Host, tmp_path: Path) -> None:
    """Loaded, offloaded and loaded again they are the same, also in the one buffer through which DynamicVRAM copies.

    They count as bytes, and a take tells them from floats.
    """
    models = tmp_path / "models" / "diffusion_models"
    models.mkdir(parents=True)
    (models / "fast_fp32.safetensors").symlink_to(comfy.base / "models" / "diffusion_models" / "fast_fp32.safetensors")
    fp8, floats = map(int, in_host(MEMORY, ROOT, tmp_path).split()[-2:])
    assert fp8 < 0.35 * floats
