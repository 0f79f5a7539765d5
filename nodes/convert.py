"""The node that writes a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path, PurePath

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import io, ui

from ..longlive_core.weights import CheckpointError, LoraFile, convert_checkpoint, read_lora
from ..longlive_core.weights.convert import ConvertProgress, Format
from ..longlive_core.weights.convert_report import report_lines
from ..longlive_core.weights.weight_reader import open_weights
from .checks import check_file, passed
from .inputs import strength_input
from .types import CATEGORY

NO_LORA = "none"
PARTS = 1000


class ConvertCheckpoint(io.ComfyNode):
    """Converts a checkpoint to NVFP4, fp8 or bf16 safetensors, optionally with a LoRA merged."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveConvertCheckpoint",
            display_name="LongLive Convert Checkpoint",
            category=CATEGORY,
            description="Converts a LongLive 2.0 file to NVFP4, fp8 or bf16 safetensors, layer by layer, and compares "
            "the result with the source. Reads the official .pt files too; FourOverSix (model_4o6.pt) converts "
            "without loss.",
            search_aliases=["longlive", "quantize", "quantise", "nvfp4", "fp8", "merge lora", "save checkpoint"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folder_paths.get_filename_list("diffusion_models"),
                    tooltip="A LongLive 2.0 file in models/diffusion_models, of any format.",
                ),
                io.Combo.Input(
                    "format",
                    options=["nvfp4", "fp8", "bf16"],
                    default="nvfp4",
                    tooltip="Format of the blocks' linear layers; all other weights are bf16. The 5B model takes 3, 5 "
                    "or 10 GB.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=[NO_LORA, *folder_paths.get_filename_list("loras")],
                    default=NO_LORA,
                    tooltip="A LoRA in models/loras, merged before the weights are rounded. none: no LoRA.",
                ),
                strength_input("strength", "Strength of the LoRA; 1 is the strength that it was trained for."),
                io.String.Input(
                    "output_name",
                    default="",
                    tooltip="Name of the new file, in the folder of the source. Empty: the name of the source plus "
                    "the format. Existing files are never replaced.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="path", tooltip="Path of the new file. Press R to see it in the loaders.")
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, model_name: str | None = None, lora_name: str | None = None, output_name: str | None = None
    ) -> bool:
        if output_name is not None and PurePath(output_name.replace("\\", "/")).name != output_name:
            raise ValueError(
                f"output_name {output_name!r} must be a name without folders: the file goes to the folder of the source"
            )
        check_file("diffusion_models", model_name, open_weights)
        return passed(lora_name == NO_LORA or check_file("loras", lora_name, read_lora))

    @classmethod
    def execute(
        cls, model_name: str, format: Format, lora_name: str, strength: float, output_name: str
    ) -> io.NodeOutput:
        source = Path(folder_paths.get_full_path_or_raise("diffusion_models", model_name))
        names = () if lora_name == NO_LORA else (lora_name,)
        loras = [LoraFile(Path(folder_paths.get_full_path_or_raise("loras", name)), strength) for name in names]
        target = source.with_name(target_name(output_name or f"{source.stem}_{format}"))
        bar = comfy.utils.ProgressBar(PARTS)

        def show(progress: ConvertProgress) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(round(PARTS * progress.fraction), PARTS)

        try:
            done = convert_checkpoint(source, target, format=format, loras=loras, on_progress=show)
        except CheckpointError as error:  # the host shows our own classes with the folder they were loaded from
            raise ValueError(str(error)) from error
        bar.update_absolute(PARTS, PARTS)
        return io.NodeOutput(str(target), ui=ui.PreviewText("\n".join(report_lines(done))))


def target_name(name: str) -> str:
    """Returns the file name with an extension that loaders accept."""
    return name if name.endswith((".safetensors", ".sft")) else f"{name}.safetensors"
