"""Several LoRAs on one MODEL add up: in our node, beside core's loaders, on bf16, fp8, fp8 fast and NVFP4."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.weights import convert_checkpoint
from safetensors.torch import load_file, save_file

from .graphs import SHORT, in_host, latent, latents, node, say_mini
from .host import ROOT, Host

pytestmark = pytest.mark.comfy

FORMATS = ("bf16", "fp8", "nvfp4")
LORAS = ("A", "B", "C")
# Each step of a chain: who applies which LoRA.
CHAINS = {
    "one": "ours A",
    "one, core": "core A",
    "two, ours": "ours A, ours B",
    "three, ours": "ours A, ours B, ours C",
    "ours, core": "ours A, core B",
    "core, ours": "core A, ours B",
    "ours, core's bypass": "ours A, bypass B",
    "core's bypass, ours": "bypass A, ours B",
    "core, ours, core's bypass": "core A, ours B, bypass C",
    "the same twice": "ours A, ours A",
}
# In ComfyUI's Python: what each chain adds to the output of every linear layer of the blocks.
MEASURE = """
import asyncio, importlib.util, json
from pathlib import Path
base, root, chains = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
cli.base_directory = str(base)
import torch
import folder_paths, nodes, comfy.model_management
from comfy_extras.nodes_lora_debug import LoraLoaderBypassModelOnly
from safetensors.torch import load_file
spec = importlib.util.spec_from_file_location("pack", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
loaders, ours = (importlib.import_module(f"pack.nodes.{name}") for name in ("loaders", "lora"))
as_causal = importlib.import_module("pack.nodes.model").as_causal

def loaded(form):
    file, precision = ("bf16", form) if form == "fp8 fast" else (form, "auto")
    return loaders.ModelLoader.execute(f"stack_{file}.safetensors", precision).args[0]

def applied(model, step):
    who, name = step.split()
    if who == "ours":
        return ours.DMDLora.execute(model, f"stack_{name}.safetensors", 1.0, "auto").args[0]
    core = nodes.LoraLoaderModelOnly() if who == "core" else LoraLoaderBypassModelOnly()
    return core.load_lora_model_only(model, f"stack_{name}.safetensors", 1.0)[0]

def outputs(model, load=True):
    if load:
        comfy.model_management.load_models_gpu([model])
    with torch.no_grad():
        layer, dtype = model.model.diffusion_model.get_submodule, model.model.get_dtype_inference()
        return {n: layer(n)(x.to(dtype)).float() for n, x in inputs.items()}

exact = load_file(base / "models" / "diffusion_models" / "stack_fp32.safetensors")
files = {n: load_file(base / "models" / "loras" / f"stack_{n}.safetensors") for n in "ABC"}
def change(step, n):
    parts = files[step.split()[1]]
    return parts[f"diffusion_model.{n}.lora_B.weight"] @ parts[f"diffusion_model.{n}.lora_A.weight"]
layers = sorted({k[len("diffusion_model."):-len(".lora_A.weight")] for k in files["A"] if "lora_A" in k})
draw = torch.Generator().manual_seed(1)
inputs = {n: torch.randn(32, exact[n + ".weight"].shape[1], generator=draw) for n in layers}
def far(pairs):
    pairs = list(pairs)
    return (sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)).sqrt().item()

result = {}
for form in ("bf16", "fp8", "fp8 fast", "nvfp4"):
    model = loaded(form)
    plain = outputs(model)
    for chain, steps in chains.items():
        stack, steps = model, steps.split(", ")
        for step in steps:
            stack = applied(stack, step)
        stack = as_causal(stack)  # as the sampler takes it
        got = outputs(stack)
        copy = stack.clone()  # as for another node, and then freed
        del copy
        kept = all(map(torch.equal, outputs(stack, load=False).values(), got.values()))
        assert kept or "bypass" in chain, f"a copy took a LoRA away: {form}, {chain}"  # core's bypass may lose its own
        sums = {n: sum(change(step, n) for step in steps) for n in layers}
        truth = {n: inputs[n] @ (exact[n + ".weight"] + sums[n]).T + exact[n + ".bias"] for n in layers}
        part = far((got[n] - plain[n], inputs[n] @ sums[n].T) for n in layers)
        result[f"{form}: {chain}"] = far((got[n], truth[n]) for n in layers), part
    again = outputs(model)
    assert all(torch.equal(again[n], plain[n]) for n in layers), "a LoRA stayed behind"
print(json.dumps(result))
"""


def write_files(base: Path) -> None:
    """Writes Mini's transformer in each format, and three LoRAs for all its blocks."""
    mini, models, loras = load_mini().model, base / "models" / "diffusion_models", base / "models" / "loras"
    for folder in (models, loras):
        folder.mkdir(parents=True, exist_ok=True)
    save_file({n: t.contiguous() for n, t in mini.state_dict().items()}, models / "stack_fp32.safetensors", say_mini())
    for form in FORMATS:
        convert_checkpoint(
            models / "stack_fp32.safetensors", models / f"stack_{form}.safetensors", format=form, overwrite=True
        )
    linears = {n: m for n, m in mini.named_modules() if isinstance(m, torch.nn.Linear) and n.startswith("blocks.")}
    for seed, name in enumerate(LORAS):
        draw = torch.Generator().manual_seed(seed)
        halves = {
            f"diffusion_model.{n}.lora_{half}.weight": torch.randn(*shape, generator=draw) * 0.1
            for n, m in linears.items()
            for half, shape in (("A", (4, m.in_features)), ("B", (m.out_features, 4)))
        }
        save_file(halves, loras / f"stack_{name}.safetensors")


@pytest.mark.usefixtures("comfy_path")
def test_loras_add_up_whoever_applies_them(tmp_path: Path, tell: Callable[[str, str], None]) -> None:
    """The layers give what A + B (+ C) merged in float32 gives, as near as with one LoRA; nothing stays behind."""
    write_files(tmp_path)
    lines = in_host(MEASURE, tmp_path, ROOT, json.dumps(CHAINS)).splitlines()
    errors: dict[str, tuple[float, float]] = json.loads(lines[-1])
    rows = [f"{name}: output {whole:.4f}, change {part:.4f}" for name, (whole, part) in errors.items()]
    tell("relative error of stacked LoRAs", "\n".join(rows))
    for name, (whole, part) in errors.items():
        form = name.split(": ")[0]
        assert whole < 1.3 * errors[f"{form}: one"][0] + 1e-3, name
        assert part < 0.02, name


@pytest.mark.parametrize("form", ["bf16", "nvfp4"])
def test_a_film_of_two_loras_is_that_of_their_sum(comfy: Host, form: str) -> None:
    """Queued in the server, the chain makes the film of one LoRA that is both; each node reports its own layers."""
    write_files(comfy.base)
    both: dict[str, torch.Tensor] = {}
    for half, dim in (("A", 0), ("B", 1)):
        parts = [_half(comfy, name, half) for name in ("A", "B")]
        both |= {n: torch.cat([part[n] for part in parts], dim) for n in parts[0]}
    save_file(both, comfy.base / "models" / "loras" / "stack_AB.safetensors")
    prompt = latent(SHORT, 5, model=["11", 0])
    prompt["9"] = node("LongLiveModelLoader", model_name=f"stack_{form}.safetensors", precision="auto")
    prompt["10"] = _lora("9", "A")
    prompt["11"] = _lora("10", "B")
    run = comfy.run(prompt, 120)
    assert run.ok, run.error
    assert all(": 60 of 60 layers; rank 4, alpha 4" in run.outputs[id]["text"][0] for id in ("10", "11"))
    two = latents(comfy, run)
    one, first = latent(SHORT, 5, model=["10", 0]), latent(SHORT, 5, model=["10", 0])
    one |= {"9": prompt["9"], "10": _lora("9", "AB")}
    first |= {"9": prompt["9"], "10": prompt["10"]}
    runs = [comfy.run(each, 120) for each in (one, first)]
    joint, alone = (latents(comfy, each) for each in runs)
    assert ((two - joint).norm() / joint.norm()).item() < 0.02
    assert ((two - alone).norm() / alone.norm()).item() > 0.05


def _half(comfy: Host, name: str, half: str) -> dict[str, torch.Tensor]:
    tensors = load_file(comfy.base / "models" / "loras" / f"stack_{name}.safetensors")
    return {n: t for n, t in tensors.items() if f"lora_{half}" in n}


def _lora(model: str, name: str) -> dict[str, object]:
    lora = f"stack_{name}.safetensors"
    return node("LongLiveDMDLora", model=[model, 0], lora_name=lora, strength=1.0, mode="auto")
