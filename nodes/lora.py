"""The node that applies a LoRA to a MODEL and reports which layers it changed."""

from __future__ import annotations

import comfy.model_patcher
import comfy.sd
import folder_paths
from comfy.ops import QuantizedTensor
from comfy_api.latest import io, ui

from ..longlive_core.weights import CheckpointError, read_lora
from .checks import check_file
from .inputs import strength_input
from .model import as_causal
from .types import CATEGORY

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
    def validate_inputs(cls, lora_name: str | None = None) -> bool | str:
        return check_file("loras", lora_name, read_lora)

    @classmethod
    def execute(
        cls, model: comfy.model_patcher.ModelPatcher, lora_name: str, strength: float, mode: str
    ) -> io.NodeOutput:
        model = as_causal(model)
        lora = read_lora(folder_paths.get_full_path_or_raise("loras", lora_name))
        modules = model.model.diffusion_model.named_modules()
        layers = {name: module for name, module in modules if hasattr(module, "in_features")}
        try:
            report = lora.coverage({name: (layer.out_features, layer.in_features) for name, layer in layers.items()})
        except CheckpointError as error:  # the host shows our own classes with the folder they were loaded from
            raise ValueError(str(error)) from error
        bypass = mode == "bypass" or (
            mode == "auto" and any(isinstance(layer.weight, QuantizedTensor) for layer in layers.values())
        )
        load = comfy.sd.load_bypass_lora_for_models if bypass else comfy.sd.load_lora_for_models
        changed, _ = load(model, None, lora.comfy_tensors(), strength, 0.0)
        text = f"{'bypass' if bypass else 'merge'}: {report.text()}"
        return io.NodeOutput(changed, text, ui=ui.PreviewText(text))
