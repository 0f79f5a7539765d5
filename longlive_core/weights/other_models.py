"""Whose checkpoint is it? Characteristic names and shapes of models that people have beside LongLive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .tensor_source import TensorSpec

PATCH_EMBEDDING = "patch_embedding.weight"

# Wan transformers by the shape of their patch embedding (width, input channels).
WAN_MODELS = {
    (1536, 16): "Wan2.1 1.3B (or LongLive 1.0, which is built on it)",
    (1536, 36): "Wan2.1 Fun 1.3B",
    (1536, 32): "Wan2.1 1.3B with extra input channels",
    (5120, 16): "Wan2.1 14B or Wan2.2 A14B, text to video",
    (5120, 36): "Wan2.1 14B or Wan2.2 A14B, image to video",
    (5120, 52): "Wan2.2 Fun A14B",
    (3072, 100): "Wan2.2 Fun 5B",
}


@dataclass(frozen=True, slots=True)
class ModelSignature:
    """`model` is told by tensors whose names end with, or contain, each of `parts`."""

    model: str
    parts: tuple[str, ...]

    def fits(self, names: str) -> bool:
        return all(part in names for part in self.parts)


# The first that fits is the answer: what is more special stands above what is more general.
MODEL_SIGNATURES = (
    ModelSignature("a LoRA, not a whole model; load it with the LoRA loader", (".lora_A.",)),
    ModelSignature("a LoRA, not a whole model; load it with the LoRA loader", (".lora_down.",)),
    ModelSignature("HunyuanVideo", ("double_blocks.0.", "individual_token_refiner")),
    ModelSignature("Flux", ("double_blocks.0.img_attn.", "single_blocks.0.")),
    ModelSignature("Stable Diffusion XL", ("input_blocks.0.0.weight", "label_emb.0.0.weight")),
    ModelSignature("Stable Diffusion 1 or 2", ("input_blocks.0.0.weight", "output_blocks.0.0.")),
    ModelSignature("Stable Diffusion 3", ("joint_blocks.0.",)),
    ModelSignature("LTX-Video", ("patchify_proj.", "transformer_blocks.0.")),
    ModelSignature("Qwen-Image", ("transformer_blocks.0.img_mod.", "img_in.")),
    ModelSignature("Wan in the layout of diffusers", ("condition_embedder.", "blocks.0.attn1.to_q.")),
    ModelSignature("Wan VACE", ("vace_blocks.0.",)),
    ModelSignature("Mochi", ("blocks.0.attn.qkv_x.",)),
    ModelSignature("a Wan VAE, not the transformer", ("encoder.", "decoder.", "conv2.weight")),
    ModelSignature(
        "a T5 text encoder, not the transformer", ("shared.weight", "encoder.block.0.layer.0.SelfAttention.")
    ),
    ModelSignature("a T5 text encoder, not the transformer", ("token_embedding.weight", "blocks.0.attn.q.")),
)

FOUROVERSIX = "FourOverSix NVFP4"


def identify_other_model(specs: Mapping[str, TensorSpec]) -> str | None:
    """The name of the model these tensors belong to, if it is known and not LongLive's."""
    names = "\n".join(specs)
    marked = next((mark.model for mark in MODEL_SIGNATURES if mark.fits(names)), None)
    if marked is not None:
        return marked
    patch = next((spec.shape for name, spec in specs.items() if name.endswith(PATCH_EMBEDDING)), ())
    return WAN_MODELS.get(patch[:2]) if len(patch) == 5 else None
