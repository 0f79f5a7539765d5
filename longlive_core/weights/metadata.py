"""Reads what shapes do not show from a checkpoint's metadata: heads, text length, and whether the model is causal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from .tensor_source import CheckpointError, TensorSource

# Class names in the metadata `config`: the official trainer's, Wan's and diffusers'.
CAUSAL_BY_CLASS = {"CausalWanModel": True, "WanModel": False, "WanTransformer3DModel": False}

# Usual names of the bidirectional Wan2.2 5B and of models that are distilled from it: wan2.2_ti2v_5B_fp16,
# Wan2_2-TI2V-5B_fp8_e4m3fn_scaled_KJ, FastWan2.2-TI2V-5B and so on.
ORDINARY_WAN = re.compile(
    r"(?!.*(?:longlive|causal|forcing|autoregressive))"
    r".*wan[-_ .]?2[._]?2[-_ .]*(?:ti2v[-_ .]*5b|5b[-_ .]*ti2v)",
    re.IGNORECASE,
)

# The metadata `format` of LongLive Mini's own files begins with this.
MINI_FORMAT = "longlive-mini"

# Metadata keys that hold the name of the model.
TITLE_KEYS = ("modelspec.architecture", "modelspec.title")


def read_settings(source: TensorSource) -> Mapping[str, Any]:
    """Reads the model's settings from the metadata `config` (flat, or nested in `transformer`) and `longlive`.

    Later sources take precedence. Raises CheckpointError if one of them is not a JSON object.
    """
    config, longlive = _json_object(source, "config"), _json_object(source, "longlive")
    nested = config.get("transformer")
    return {**config, **(cast("dict[str, Any]", nested) if isinstance(nested, dict) else {}), **longlive}


def is_causal(source: TensorSource) -> bool | None:
    """Returns whether the model is causal, or None if the file does not say.

    A causal model and the bidirectional Wan have equal names and shapes. The metadata decides (`longlive`, ComfyUI's
    `causal_ar`, a class name), then what only LongLive's own files have, then the file name and title.
    """
    settings = read_settings(source)
    for key in ("causal", "causal_ar"):
        if isinstance(settings.get(key), bool):
            return settings[key]
    class_name = settings.get("_class_name")
    if isinstance(class_name, str) and class_name in CAUSAL_BY_CLASS:
        return CAUSAL_BY_CLASS[class_name]
    if source.wrapper in ("generator", "generator_ema") or source.metadata.get("format", "").startswith(MINI_FORMAT):
        return True
    folder = source.path.parent.name if source.path.name.startswith("diffusion_pytorch_model") else ""
    titles = (source.path.name, folder, *(source.metadata.get(key, "") for key in TITLE_KEYS))
    return False if any(ORDINARY_WAN.match(title) for title in titles) else None


def causal_note(source: TensorSource) -> str:
    """The note for a checkpoint that does not say whether it is causal."""
    return (
        f"{source.path.name} does not say whether it is LongLive or the ordinary Wan2.2 TI2V 5B, which has the same "
        "layers and makes noise here: if the film is noise, get LongLive-2.0-5B; if it is not, `longlive convert "
        "--causal` marks the file"
    )


def merged_loras(source: TensorSource) -> tuple[str, ...]:
    """Returns the names of the LoRA files that a conversion has merged into the checkpoint."""
    converted = _json_object(source, "longlive").get("converted")
    names = cast("dict[str, Any]", converted).get("lora") if isinstance(converted, dict) else None
    if isinstance(names, list):
        return tuple(map(str, cast("list[object]", names)))
    return () if names is None else (str(names),)


def _json_object(source: TensorSource, key: str) -> dict[str, Any]:
    try:
        content = json.loads(source.metadata.get(key, "{}"))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {source.path} has damaged metadata '{key}': {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {source.path} has metadata '{key}' that is no JSON object: {content!r:.80}")
    return cast("dict[str, Any]", content)
