"""A LoRA's changes of norms and modulations reach the loaded MODEL, with DynamicVRAM and without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import load_mini
from safetensors.torch import save_file

from .graphs import in_host
from .host import ROOT

pytestmark = [pytest.mark.comfy, pytest.mark.usefixtures("comfy_path")]

# Parameters of layers of the host, of norms, and of modules with submodules.
NAMES = (
    "blocks.0.self_attn.q.bias",
    "blocks.0.self_attn.norm_q.weight",
    "blocks.1.norm3.weight",
    "blocks.1.norm3.bias",
    "blocks.2.modulation",
    "head.modulation",
)
# In ComfyUI's Python: a MODEL with the LoRA, loaded, loaded again, and the MODEL without it. DynamicVRAM runs on the
# CPU here, without the buffers that it has for a card.
LOAD = """
import importlib, importlib.util, json
from pathlib import Path
root, lora, names = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
import torch
import folder_paths, comfy.model_management, comfy.model_patcher as patchers
spec = importlib.util.spec_from_file_location("pack", root / "__init__.py", submodule_search_locations=[str(root)])
sys.modules["pack"] = pack = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pack)
host, ours, left_out = (importlib.import_module(f"pack.nodes.{n}") for n in ("model", "lora", "patched_parameters"))
mini = importlib.import_module("pack.longlive_core.mini").load_mini().model
cpu, load = torch.device("cpu"), comfy.model_management.load_models_gpu

class Dynamic(patchers.ModelPatcherDynamic):
    def __new__(cls, *arguments, **options):
        return object.__new__(cls)
    def partially_unload(self, *arguments, **options):
        return self.restore_loaded_backups()

class Buffer:
    size = 0
    def __init__(self, *arguments, **options):
        pass

patchers.comfy_aimdo.host_buffer.HostBuffer = Buffer

def values(patcher):
    found = []
    for name in names:
        owner, _, own = name.rpartition(".")
        module = patcher.model.diffusion_model.get_submodule(owner)
        change = getattr(module, f"{own}_lowvram_function", None)
        value = getattr(module, own)
        value = value if change is None else change(value.clone())
        for late in getattr(module, f"{own}_function", []):  # of a layer that does not fit, when it is run
            value = late(value.clone())
        found.append(value.clone())
    return found

def changed_by(made, before):
    return [round((a - b).mean().item(), 4) for a, b in zip(made, before)]

result = {}
for kind in (patchers.ModelPatcher, Dynamic):
    patchers.CoreModelPatcher = kind
    plain = host.make_patcher(mini.config, dict(mini.state_dict()))
    before = values(plain)
    model = ours.with_lora(plain, lora, 0.5)[0]
    states = []
    for one in (model, model, plain, model):
        load([one])
        states.append(changed_by(values(one), before))
    left_out.patch_parameters(model, cpu)
    states.append(changed_by(values(model), before))
    again = ours.with_lora(host.make_patcher(mini.config, dict(mini.state_dict())), lora, 0.5)[0]
    for memory in (1, 10**9):  # first only a part of it fits, then the rest
        again.load(cpu, lowvram_model_memory=memory)
        states.append(changed_by(values(again), before))
    result[kind.__name__] = states
    comfy.model_management.current_loaded_models.clear()
print(json.dumps(result))
"""


def test_norms_and_modulations_are_changed_once(tmp_path: Path) -> None:
    """Whatever loads the MODEL, however often; and without the LoRA they are what they were."""
    weights = load_mini().model.state_dict()
    lora = tmp_path / "norms.safetensors"
    endings = {"weight": "diff", "bias": "diff_b"}
    changes: dict[str, torch.Tensor] = {}
    for name in NAMES:
        owner, _, own = name.rpartition(".")
        key = f"{owner}.{endings[own]}" if own in endings else f"{name}.diff"
        changes[f"diffusion_model.{key}"] = torch.full_like(weights[name], 0.2)
    save_file(changes, lora)
    states = json.loads(in_host(LOAD, ROOT, lora, json.dumps(NAMES)).splitlines()[-1])
    with_lora, without = [0.1] * len(NAMES), [0.0] * len(NAMES)
    assert list(states) == ["ModelPatcher", "Dynamic"]
    for kind, found in states.items():
        assert found == [with_lora, with_lora, without, *[with_lora] * 4], kind
