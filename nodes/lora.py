"""The node that applies a LoRA to a MODEL and reports which layers it changed."""

from __future__ import annotations

import comfy.lora
import comfy.model_patcher
import folder_paths
from comfy.ops import QuantizedTensor
from comfy.weight_adapter import WeightAdapterBase
from comfy_api.latest import io, ui

from ..longlive_core.render.shared_model import SharedLora
from ..longlive_core.weights import CheckpointError, Lora, read_lora
from ..longlive_core.weights.lora_file import check_not_merged
from .checks import check_file
from .fp8_model import check_patches
from .inputs import strength_input
from .lora_beside import ChangeAdapter, DoraAdapter, add_beside, keep_merged
from .model import as_causal, checkpoint_of
from .shared_model import remember_lora
from .types import CATEGORY

PREFIX = "diffusion_model."
MODES = ("auto", "merge", "bypass")


class DMDLora(io.ComfyNode):
    """Applies a LoRA to a MODEL and reports the layers that it changed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveDMDLora",
            display_name="LongLive DMD LoRA",
            category=CATEGORY,
            description="Applies LongLive's few-step LoRA, or any LoRA for Wan 2.2 5B, to the model and reports which "
            "layers it changed.",
            search_aliases=["longlive", "load lora", "dmd", "distilled", "few steps"],
            inputs=[
                io.Model.Input("model", tooltip="From LongLive Model Loader or LongLive Mini."),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="A LoRA in models/loras: safetensors, or LongLive's official .pt file.",
                ),
                strength_input("strength", "1 is the strength that the LoRA was trained for; 0 turns it off."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="auto",
                    tooltip="merge adds the LoRA to the weights; bypass computes it beside each layer, which is exact "
                    "on quantised weights. auto: bypass on quantised weights, merge on others.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with the LoRA applied."),
                io.String.Output(display_name="report", tooltip="The layers applied, missing and unused."),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora_name: str | None = None) -> bool:
        return check_file("loras", lora_name, read_lora)

    @classmethod
    def execute(
        cls, model: comfy.model_patcher.ModelPatcher, lora_name: str, strength: float, mode: str
    ) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        changed, text = with_lora(as_causal(model), path, strength, mode)
        return io.NodeOutput(changed, text, ui=ui.PreviewText(text))


def with_lora(
    model: comfy.model_patcher.ModelPatcher, path: str, strength: float, mode: str = "auto"
) -> tuple[comfy.model_patcher.ModelPatcher, str]:
    """Returns our MODEL with a LoRA file applied, and the report of its layers; mode as in the node.

    Raises ValueError for a LoRA that does not fit the model, or that is merged into it already.
    """
    modules = model.model.diffusion_model.named_modules()
    layers = {name: module for name, module in modules if hasattr(module, "in_features")}
    linears = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
    tensors = {n: t.shape for n, t in model.model.diffusion_model.state_dict().items()}
    quantised = {name for name, layer in layers.items() if isinstance(layer.weight, QuantizedTensor)}
    bypass = mode == "bypass" or (mode == "auto" and bool(quantised))
    try:
        lora = read_lora(path)
        if strength and (known := checkpoint_of(model)) is not None:
            check_not_merged(*known, lora.path)
        report = lora.coverage(linears, tensors)
        changed = apply_lora(model, lora, strength, bypass=bypass)
    except CheckpointError as error:  # the host shows our own classes with the folder they were loaded from
        raise ValueError(str(error)) from error
    remember_lora(changed, model, SharedLora(lora.path, strength, not bypass))
    return changed, f"{'bypass' if bypass else 'merge'}: {report.text()}"


def apply_lora(
    model: comfy.model_patcher.ModelPatcher, lora: Lora, strength: float, *, bypass: bool
) -> comfy.model_patcher.ModelPatcher:
    """Returns the MODEL with a LoRA merged into its weights when it is loaded, or beside its layers.

    Raises CheckpointError for a DoRA beside layers that scales their inputs.
    """
    dora = {f"{PREFIX}{n}.weight": ChangeAdapter(c, c.tensors) for n, c in lora.layers.items() if c.kind == "DoRA"}
    if bypass and any(not change.change.scales_outputs for change in dora.values()):
        raise CheckpointError(
            f"lora {lora.path} is a DoRA with a magnitude for each input, which cannot run beside quantised layers: "
            "merge it into the bf16 model with LongLive Convert Checkpoint or `longlive convert --lora`, or choose "
            "mode merge"
        )
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    loaded = {**comfy.lora.load_lora(lora.comfy_tensors(), keys), **dora}
    changed = model.clone()
    if bypass:
        whole = {
            f"{PREFIX}{n}.weight": ChangeAdapter(c, c.tensors) for n, c in lora.layers.items() if c.kind == "whole"
        }
        scaled = {key: DoraAdapter(change.change) for key, change in dora.items()}
        adapters = {key: a for key, a in loaded.items() if isinstance(a, WeightAdapterBase)} | whole | scaled
        loaded = {key: patch for key, patch in loaded.items() if key not in adapters}
        add_beside(changed, {key.removesuffix(".weight"): (adapter, strength) for key, adapter in adapters.items()})
    else:
        keep_merged(loaded.values())
    changed.add_patches(loaded, strength)
    return check_patches(changed)
