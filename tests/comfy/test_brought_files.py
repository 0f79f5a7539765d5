"""Model files and LoRAs of every kind in ComfyUI's Python: the loader and the LoRA node compute what the files mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.weights import convert_checkpoint
from safetensors.torch import save_file
from torch import Tensor, nn

from .graphs import in_host, say_mini
from .host import ROOT

pytestmark = [pytest.mark.comfy, pytest.mark.usefixtures("comfy_path")]

PREFIX = "diffusion_model."
# LoRAs one behind the other.
TOGETHER = ("dora+lora",)
HEAD = """
import importlib, importlib.util, json
from pathlib import Path
base, root, names = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
cli.base_directory = str(base)
import torch
import folder_paths, nodes, comfy.model_management
spec = importlib.util.spec_from_file_location("pack", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
loaders, ours = (importlib.import_module(f"pack.nodes.{name}") for name in ("loaders", "lora"))

def weights(model):
    comfy.model_management.load_models_gpu([model])
    inner, found = model.model.diffusion_model, {}
    for n in ("blocks.1.self_attn.q", "blocks.4.ffn.2"):
        layer, dtype = inner.get_submodule(n), model.model.get_dtype_inference()
        with torch.no_grad():
            bias = layer(torch.zeros(1, layer.in_features, dtype=dtype)).float()
            found[n] = (layer(torch.eye(layer.in_features, dtype=dtype)).float() - bias).T, bias[0]
    return found

def far(a, b):
    return ((a - b).norm() / b.norm()).item()
"""
MODELS = """
result, exact = {}, weights(loaders.ModelLoader.execute("bf16.safetensors", "auto").args[0])
for name in names:
    made = loaders.ModelLoader.execute(name, "auto")
    note = str(made.ui and made.ui.as_dict())
    result[name] = max(far(w, exact[n][0]) for n, (w, _) in weights(made.args[0]).items()), note
print(json.dumps(result))
"""
LORAS = """
result, truth = {}, torch.load(base / "truth.pt")

def wanted(name, n, i, plain):
    if i or "dora" not in name:
        return sum(truth[part][n][i] for part in name.split("+"))
    size, product = truth["dora"][n][0]  # of the layer's weight as it is, rounded or not
    moved = plain[n][0] + product
    dora = size * moved / moved.norm(dim=1, keepdim=True) - plain[n][0]
    return dora + sum(truth[part][n][0] for part in name.split("+") if part != "dora")

for form in ("bf16", "nvfp4"):
    model = loaders.ModelLoader.execute(f"{form}.safetensors", "auto").args[0]
    plain = weights(model)
    for name in names:
        try:
            made = model
            for part in name.split("+"):
                made = ours.DMDLora.execute(made, f"{part}.safetensors", 1.0, "auto").args[0]
            got = weights(made)
            parts = [(got[n][i] - plain[n][i], wanted(name, n, i, plain)) for n in plain for i in (0, 1)]
            result[f"{form} {name}"] = max(far(*part) for part in parts if part[1].any())
        except ValueError as error:
            result[f"{form} {name}"] = str(error)
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with Mini's transformer in bf16 and NVFP4."""
    base = tmp_path_factory.mktemp("brought")
    for folder in ("diffusion_models", "loras"):
        (base / "models" / folder).mkdir(parents=True)
    models = base / "models" / "diffusion_models"
    save_file(state(), models / "bf16.safetensors", say_mini())
    convert_checkpoint(models / "bf16.safetensors", models / "nvfp4.safetensors", format="nvfp4")
    return base


def state() -> dict[str, Tensor]:
    return {n: t.bfloat16().contiguous() for n, t in load_mini().model.state_dict().items()}


def linears() -> dict[str, nn.Linear]:
    modules = load_mini().model.named_modules()
    return {n: m for n, m in modules if isinstance(m, nn.Linear) and n.startswith("blocks.")}


def test_model_files_of_every_kind_load(base: Path) -> None:
    """Prefixes, wrappers, parts, wrong names and fp8 scales: the layers are those of the plain file, or near in fp8.

    What the host does not compute with, and what may be the ordinary Wan, is noted on the node.
    """
    models, half = base / "models" / "diffusion_models", state()
    save_file({f"student._orig_mod.{n}": t for n, t in half.items()}, models / "prefix.safetensors", say_mini())
    torch.save({"state_dict": half, "step": 3}, models / "wrapped.pt")
    torch.save(half, models / "renamed.safetensors")
    for part, own in enumerate((list(half)[::2], list(half)[1::2]), 1):
        save_file({n: half[n] for n in own}, models / f"part-{part:05}-of-00002.safetensors")
    for kind in ("rows", "unmarked"):
        tensors = dict(half)
        for n in linears():
            weight = half[f"{n}.weight"].float()
            scale = (weight.abs().amax(1, keepdim=True) if kind == "rows" else weight.abs().max()) / 448
            tensors |= {f"{n}.weight": (weight / scale).to(torch.float8_e4m3fn), f"{n}.weight_scale": scale}
        save_file(tensors, models / f"{kind}.safetensors", say_mini())
    plain = ["prefix.safetensors", "wrapped.pt", "renamed.safetensors", "part-00002-of-00002.safetensors"]
    names = [*plain, "rows.safetensors", "unmarked.safetensors"]
    result = json.loads(in_host(HEAD + MODELS, base, ROOT, json.dumps(names)).splitlines()[-1])
    assert all(result[name][0] < 1e-3 for name in plain), result
    assert all(0 < result[name][0] < 0.04 for name in names[len(plain) :]), result
    assert "a scale for each row" in result["rows.safetensors"][1]
    assert "does not say whether it is LongLive" in result["wrapped.pt"][1]
    assert "does not say" not in result["prefix.safetensors"][1]


def test_loras_of_every_kind_act(base: Path) -> None:
    """Merged into bf16 and beside NVFP4, a DoRA too; one that scales inputs is refused there with the way out."""
    draw, mini, truth = torch.Generator().manual_seed(3), load_mini().model.state_dict(), {}
    files: dict[str, dict[str, Tensor]] = {
        name: {} for name in ("lora", "dora", "inputs", "loha", "lokr", "bias", "whole")
    }
    for n, layer in linears().items():
        rows, columns, key = layer.out_features, layer.in_features, PREFIX + n
        down, up = (torch.randn(*shape, generator=draw) * 0.1 for shape in ((4, columns), (rows, 4)))
        halves = {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        weight, change, none = mini[f"{n}.weight"].bfloat16().float(), up @ down, torch.zeros(rows)
        size = 1.2 * weight.norm(dim=1, keepdim=True)
        w1, w2 = torch.randn(8, 8, generator=draw) * 0.1, torch.randn(rows // 8, columns // 8, generator=draw) * 0.1
        files["lora"] |= halves
        files["dora"] |= {**halves, f"{key}.dora_scale": size}
        files["inputs"] |= {**halves, f"{key}.dora_scale": torch.ones(1, columns)}
        files["loha"] |= {f"{key}.hada_w1_a": up, f"{key}.hada_w1_b": down, f"{key}.hada_w2_a": up + 1}
        files["loha"] |= {f"{key}.hada_w2_b": down + 1, f"{key}.alpha": torch.tensor(4.0)}
        files["lokr"] |= {f"{key}.lokr_w1": w1, f"{key}.lokr_w2": w2}
        files["bias"] |= {**halves, f"{key}.diff_b": none + 0.1}
        files["whole"] |= {f"{key}.diff": change}
        truth[n] = {
            "lora": (change, none),
            "dora": ((size, change), none),
            "inputs": ((weight + change) / (weight + change).norm(dim=0, keepdim=True) - weight, none),
            "loha": (change * ((up + 1) @ (down + 1)), none),
            "lokr": (torch.kron(w1, w2), none),
            "bias": (change, none + 0.1),
            "whole": (change, none),
        }
    for name, tensors in files.items():
        save_file(
            {k: t.contiguous().clone() for k, t in tensors.items()}, base / "models" / "loras" / f"{name}.safetensors"
        )
    torch.save({name: {n: truth[n][name] for n in truth} for name in files}, base / "truth.pt")
    names = json.dumps([*files, *TOGETHER])
    result = json.loads(in_host(HEAD + LORAS, base, ROOT, names).splitlines()[-1])
    refused = result.pop("nvfp4 inputs")
    assert "DoRA" in refused and "LongLive Convert Checkpoint" in refused
    assert all(isinstance(error, float) and error < 0.02 for error in result.values()), result
