"""Parses the names of tensors in LoRA files: the layer, and which part of its LoRA the tensor is."""

from __future__ import annotations

import re

from .names import PREFIXES, strip_prefixes

LORA_PREFIXES = ("base_model.model.", "base_model.", "transformer.", "unet.", *PREFIXES)

# Suffixes that peft, kohya and diffusers give to the three tensors of a layer.
PART_BY_SUFFIX = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.default.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_A": "down",
    ".lora_B": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}

# kohya joins the parts of a name with underscores: lora_unet_blocks_0_self_attn_q. Wan-Fun's trainer writes two
# after unet.
KOHYA_PREFIX = re.compile(r"lora_(?:unet|transformer)__?")
KOHYA_NAMES = (
    (re.compile(r"blocks_(\d+)_(self_attn|cross_attn|attn1|attn2)_(\w+)"), r"blocks.\1.\2.\3"),
    (re.compile(r"blocks_(\d+)_ffn_(\d+)"), r"blocks.\1.ffn.\2"),
    (re.compile(r"(text_embedding|time_embedding|time_projection)_(\d+)"), r"\1.\2"),
    (re.compile(r"head_head"), "head.head"),
)

# Patterns of diffusers' names -> Wan's names.
DIFFUSERS_NAMES = (
    (re.compile(r"\.attn1\."), ".self_attn."),
    (re.compile(r"\.attn2\."), ".cross_attn."),
    (re.compile(r"_attn\.to_([qkv])$"), r"_attn.\1"),
    (re.compile(r"_attn\.to_out[._]0$"), "_attn.o"),
    (re.compile(r"\.ffn\.net\.0\.proj$"), ".ffn.0"),
    (re.compile(r"\.ffn\.net\.2$"), ".ffn.2"),
    (re.compile(r"^condition_embedder\.text_embedder\.linear_1$"), "text_embedding.0"),
    (re.compile(r"^condition_embedder\.text_embedder\.linear_2$"), "text_embedding.2"),
    (re.compile(r"^condition_embedder\.time_embedder\.linear_1$"), "time_embedding.0"),
    (re.compile(r"^condition_embedder\.time_embedder\.linear_2$"), "time_embedding.2"),
    (re.compile(r"^condition_embedder\.time_proj$"), "time_projection.1"),
    (re.compile(r"^proj_out$"), "head.head"),
)


def parse_lora_name(name: str) -> tuple[str, str] | None:
    """Returns Wan's name of the layer, and `down`, `up` or `alpha`; None if the tensor is not part of a LoRA."""
    suffix = next((suffix for suffix in PART_BY_SUFFIX if name.endswith(suffix)), None)
    return (wan_layer(name.removesuffix(suffix)), PART_BY_SUFFIX[suffix]) if suffix is not None else None


def wan_layer(name: str) -> str:
    """Returns Wan's name of a layer: `lora_unet_blocks_0_self_attn_q` and `transformer.blocks.0.attn1.to_q` are both
    `blocks.0.self_attn.q`. A name without a known pattern only loses its prefixes.
    """
    prefix = KOHYA_PREFIX.match(name)
    if prefix is not None:
        rest = name[prefix.end() :]
        name = next((pattern.sub(wan, rest) for pattern, wan in KOHYA_NAMES if pattern.fullmatch(rest)), name)
    name = strip_prefixes(name, LORA_PREFIXES)
    for pattern, wan in DIFFUSERS_NAMES:
        name = pattern.sub(wan, name)
    return name
