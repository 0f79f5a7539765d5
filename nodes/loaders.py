"""Nodes that load MODEL, CLIP and VAE."""

from __future__ import annotations

import json
import logging

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..kernels.warm_up import warm_up
from ..longlive_core.mini import MINI_DIT, load_mini
from ..longlive_core.model.fp8_gate import ATTENTION_FORMATS, AttentionFormat
from ..longlive_core.pipeline.warm_up import warm_workers
from ..longlive_core.weights import Checkpoint, inspect_checkpoint
from ..longlive_core.weights.metadata import causal_note
from ..longlive_core.weights.names import strip_prefixes
from ..longlive_core.weights.packing import COMFY_FP8_FORMATS, encode_settings, unpack
from .attention import set_attention_format
from .checks import check_file
from .fp8_model import check_fp8, fp8_notes, take_fp8_layers
from .mini import MiniVAE, mini_clip, mini_model
from .model import make_patcher, remember_checkpoint
from .routes.workers import workers
from .types import CATEGORY
from .vae import MiniLatents

log = logging.getLogger(__name__)

QUANTISED = "_quantization_metadata"
FP8_FAST = "fp8 fast"
PRECISIONS = {"auto": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, FP8_FAST: None}


class ModelLoader(io.ComfyNode):
    """Loads a LongLive 2.0 checkpoint as MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveModelLoader",
            display_name="LongLive Model Loader",
            category=CATEGORY,
            description="Loads LongLive 2.0 (Wan 2.2 5B, trained to make films block by block) from bf16, fp8 or NVFP4 "
            "safetensors, or from an official .pt file.",
            search_aliases=["longlive", "load causal wan", "load diffusion model", "nvfp4", "long video"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folder_paths.get_filename_list("diffusion_models"),
                    tooltip="A LongLive 2.0 file in models/diffusion_models.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="auto",
                    tooltip="Precision of unquantised weights in memory. auto: as in the file, if the card can "
                    "compute in it. Quantised files (fp8, NVFP4) stay quantised. fp8 fast: layers multiply in FP8 with "
                    "a scale for each row, of a bf16, fp16 or fp8 file; fastest on RTX 40 and later, H100 and later.",
                ),
                io.Combo.Input(
                    "attention",
                    options=list(ATTENTION_FORMATS),
                    default="usual",
                    optional=True,
                    tooltip="Number format of self-attention. fp8: in the layers that it changes little, by cuDNN, "
                    "FlashAttention-3 or SageAttention if one is installed and fits the card; the log names them.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model, for LongLive Streaming Sampler and every LoRA loader.")],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None = None) -> bool:
        return check_file("diffusion_models", model_name, inspect_checkpoint)

    @classmethod
    def execute(cls, model_name: str, precision: str, attention: AttentionFormat = "usual") -> io.NodeOutput:
        checkpoint = inspect_checkpoint(folder_paths.get_full_path_or_raise("diffusion_models", model_name))
        # A converted LongLive Mini: its latents are its own.
        latents = MiniLatents(load_mini().vae) if checkpoint.config == MINI_DIT else None
        if precision == FP8_FAST:
            model, notes = _fp8_fast(checkpoint, latents)
        else:
            dtype, (tensors, notes) = PRECISIONS[precision], _tensors(checkpoint)
            model = make_patcher(checkpoint.config, tensors, dtype=dtype, latent_format=latents)
        warm_up(model.load_device)
        if (threads := workers()) is not None:
            warm_workers(threads, model.load_device)
        remember_checkpoint(model, checkpoint)
        set_attention_format(model, attention)
        if not checkpoint.causal:
            notes.append(causal_note(checkpoint.source))
        for note in notes:
            log.warning("LongLive Model Loader: %s", note)
        return io.NodeOutput(model, ui=ui.PreviewText("\n".join(notes)) if notes else None)


def _fp8_fast(
    checkpoint: Checkpoint, latents: MiniLatents | None
) -> tuple[comfy.model_patcher.ModelPatcher, list[str]]:
    """Makes a MODEL whose layers multiply in FP8; returns it with notes. Raises ValueError as `check_fp8`."""
    check_fp8(checkpoint)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    state = _read(checkpoint)
    layers = take_fp8_layers(checkpoint, state, device, offload)
    return make_patcher(checkpoint.config, state, latent_format=latents, fp8_layers=layers), fp8_notes(device)


def _tensors(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of `_read` as the host computes with them, with notes."""
    state, source, rows = _read(checkpoint), checkpoint.source, 0
    for layer in (layer for layer, form in checkpoint.quantized.items() if form == "fp8"):
        scale = state.get(f"{layer}.weight_scale")
        if scale is not None and scale.numel() > 1:
            rows += 1
            del state[f"{layer}.weight_scale"]
            state.pop(f"{layer}.comfy_quant", None)
            weight = state[f"{layer}.weight"]
            state[f"{layer}.weight"] = unpack({"weight": weight, "weight_scale": scale}, weight.shape).bfloat16()
        elif scale is not None and f"{layer}.comfy_quant" not in state:
            form = COMFY_FP8_FORMATS[source.specs[checkpoint.names[f"{layer}.weight"]].dtype]
            state[f"{layer}.comfy_quant"] = encode_settings({"format": form})
    note = (
        f"{rows} fp8 layers have a scale for each row, which ComfyUI does not compute with: they are bf16 in memory; "
        "precision fp8 fast computes with them as they are"
    )
    return state, [note] if rows else []


def _read(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Reads the tensors under Wan's names, as the host reads them.

    Safetensors stay on disk until they are used, if the host supports that.
    """
    tensors, metadata, source = {}, {}, checkpoint.source
    if source.safetensors and all(file.suffix in (".safetensors", ".sft") for file in source.files):
        for file in source.files:
            part, about = comfy.utils.load_torch_file(str(file), return_metadata=True)
            tensors, metadata = {**tensors, **part}, {**metadata, **(about or {})}
    if not tensors.keys() >= set(checkpoint.names.values()):  # a .pt, or FourOverSix, which is read as ComfyUI's NVFP4
        tensors = source.read(source.specs)
    renamed = {strip_prefixes(name): tensor for name, tensor in tensors.items()}
    return comfy.utils.convert_old_quants(renamed, "", metadata=_rename_layers(metadata))[0]


def _rename_layers(metadata: dict[str, str]) -> dict[str, str]:
    """Renames the quantised layers in the metadata to Wan's names."""
    if QUANTISED not in metadata:
        return metadata
    listed = json.loads(metadata[QUANTISED])
    layers = {strip_prefixes(name): layer for name, layer in listed["layers"].items()}
    return {**metadata, QUANTISED: json.dumps({**listed, "layers": layers})}


class MiniModel(io.ComfyNode):
    """Loads the embedded model as MODEL, CLIP and VAE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveMini",
            display_name="LongLive Mini",
            category=CATEGORY,
            description="The embedded model: the whole system at toy size, trained on a world of circles, squares, "
            "triangles and rings. It needs no download and runs on any machine, at 128x128 or less.",
            search_aliases=["longlive", "toy model", "demo", "test model", "cpu"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="The transformer, for films of at most 128x128 pixels."),
                io.Clip.Output(tooltip="The text encoder. It knows only the English words of its world."),
                io.Vae.Output(tooltip="The VAE. It also works with ComfyUI's VAE Decode and VAE Encode."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        mini = load_mini()
        return io.NodeOutput(mini_model(mini), mini_clip(mini), MiniVAE(mini))
