"""Parses the names of tensors in LoRA files: the layer, and which part of its change the tensor is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .names import FRONT, WRAPPERS

# Endings of names -> the part; a named adapter may stand before `.weight`: `lora_A.my_style.weight`.
_ENDINGS = tuple(
    (re.compile(rf"(.+?){ending}"), part)
    for ending, part in (
        (r"(?:\.lora_A|\.lora_down|[._]lora\.down|\.lora_linear_layer\.down)(?:(?:\..+)?\.weight)?", "down"),
        (r"(?:\.lora_B|\.lora_up|[._]lora\.up|\.lora_linear_layer\.up)(?:(?:\..+)?\.weight)?", "up"),
        (r"(?:\.lora_B|\.lora_up)(?:\..+)?\.bias", "bias"),
        (r"(?:\.dora_scale|\.lora_magnitude_vector(?:\..+)?)", "magnitude"),
        (r"\.alpha", "alpha"),
        (r"\.(?:diff|w_norm)", "diff"),
        (r"\.(?:diff_b|b_norm)", "diff_b"),
        *((rf"\.({part})", part) for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
        *(
            (rf"\.({part})", part)
            for part in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
        ),
    )
)

# Parts of changes that are not computed here: Tucker forms, OFT, BOFT, GLoRA, VeRA, IA3, and replaced weights.
NOT_COMPUTED = re.compile(
    r".+\.(?:hada_t[12]|lokr_t[12]|oft_\w+|boft_\w+|[ab][12]|lora_mid|set_weight|reshape_weight|vera_lambda_\w|ia3_l|rescale)"
    r"(?:\..+)?"
)

# kohya joins the parts of a name with underscores: lora_unet_blocks_0_self_attn_q. Wan-Fun's trainer writes two
# after unet, LyCORIS begins with its own name, and others leave dots.
_KOHYA = re.compile(r"(?:lora|lycoris)(?:_(?:unet|transformer|dit|model|diffusion_model))*_+")
# diffusers has names of its own outside the blocks.
_DIFFUSERS_FRONT = re.compile(r"(?:[^.]+\.)*?(?=(?:condition_embedder\.|proj_out$|scale_shift_table$))")

# Names within a block, with underscores for dots -> Wan's names.
_IN_ATTENTION = {
    **{name: name for name in ("q", "k", "v", "o", "norm_q", "norm_k")},
    **{"to_q": "q", "to_k": "k", "to_v": "v", "to_out_0": "o", "to_out": "o"},
}
_IN_BLOCK = {
    f"{theirs}_{name}": f"{wan}.{layer}"
    for theirs, wan in (
        ("self_attn", "self_attn"),
        ("attn1", "self_attn"),
        ("cross_attn", "cross_attn"),
        ("attn2", "cross_attn"),
    )
    for name, layer in _IN_ATTENTION.items()
} | {
    **{"ffn_0": "ffn.0", "ffn_2": "ffn.2", "ffn_net_0_proj": "ffn.0", "ffn_net_2": "ffn.2"},
    **{"norm3": "norm3", "norm2": "norm3", "modulation": "modulation", "scale_shift_table": "modulation"},
}
_EMBEDDERS = {"text_embedding": "text_embedder", "time_embedding": "time_embedder"}
_OUTSIDE = {
    **{name.replace(".", "_"): name for name in ("patch_embedding", "head.head", "head.modulation")},
    **{f"{wan}_{n}": f"{wan}.{n}" for wan in _EMBEDDERS for n in (0, 2)},
    **{f"condition_embedder_{e}_linear_{n}": f"{w}.{2 * n - 2}" for w, e in _EMBEDDERS.items() for n in (1, 2)},
    **{"time_projection_1": "time_projection.1", "condition_embedder_time_proj": "time_projection.1"},
    **{"proj_out": "head.head", "scale_shift_table": "head.modulation"},
}


@dataclass(frozen=True, slots=True)
class LoraName:
    """layer: Wan's name. part: what the tensor is, such as `down` or `diff_b`. own: the file's name of the layer."""

    layer: str
    part: str
    own: str


def parse_lora_name(name: str) -> LoraName | None:
    """Returns the layer and the part of its change; None if the tensor is no part of a change."""
    for ending, part in _ENDINGS:
        match = ending.fullmatch(name)
        if match is not None:
            return LoraName(wan_layer(match[1]), part, match[1])
    return None


def wan_layer(name: str) -> str:
    """Returns Wan's name of a layer: `lora_unet_blocks_0_self_attn_q` and `transformer.blocks.0.attn1.to_q` are both
    `blocks.0.self_attn.q`. A name without a known pattern only loses its prefixes.
    """
    name = WRAPPERS.sub("", name)
    front = _KOHYA.match(name) or FRONT.match(f"{name}.") or _DIFFUSERS_FRONT.match(name)
    rest = name[front.end() :] if front else name
    flat = rest.replace(".", "_")
    block = re.fullmatch(r"blocks_(\d+)_(.+)", flat)
    if block is not None and block[2] in _IN_BLOCK:
        return f"blocks.{block[1]}.{_IN_BLOCK[block[2]]}"
    known = _OUTSIDE.get(flat)
    return known if known is not None else name if _KOHYA.match(name) else rest
