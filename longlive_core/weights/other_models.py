"""Identifies checkpoints of other models by characteristic names and shapes of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .tensor_source import TensorSpec

PATCH_EMBEDDING = "patch_embedding.weight"

# (width, input channels) of the patch embedding -> Wan transformer.
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
    """A model whose checkpoints have, for each of `name_parts`, a tensor with this part in its name."""

    model: str
    name_parts: tuple[str, ...]

    def matches(self, names: str) -> bool:
        """Whether the names of tensors, joined in one string, contain all parts."""
        return all(part in names for part in self.name_parts)


# The first match counts, so specific signatures come before general ones.
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
    """Returns the name of the model that has these tensors; None for LongLive and for unknown models."""
    names = "\n".join(specs)
    model = next((signature.model for signature in MODEL_SIGNATURES if signature.matches(names)), None)
    if model is not None:
        return model
    patch = next((spec.shape for name, spec in specs.items() if name.endswith(PATCH_EMBEDDING)), ())
    return WAN_MODELS.get(patch[:2]) if len(patch) == 5 else None
