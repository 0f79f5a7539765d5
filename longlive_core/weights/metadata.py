"""Reads what shapes do not show from a checkpoint's metadata: heads, text length, and whether the model is causal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from .tensor_source import CheckpointError, TensorSource

# Class names in the metadata `config`: the official trainer's, Wan's and diffusers'.
CAUSAL_BY_CLASS = {"CausalWanModel": True, "WanModel": False, "WanTransformer3DModel": False}

# Usual names of the bidirectional Wan2.2 5B: wan2.2_ti2v_5B_fp16, Wan2_2-TI2V-5B_fp8_e4m3fn_scaled_KJ and so on.
ORDINARY_WAN = re.compile(r"wan[-_ ]?2[._]2[-_ ]ti2v[-_ ]5b(?!.*(longlive|causal|forcing))", re.IGNORECASE)

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
    `causal_ar`, a class name), then the wrapper of LongLive's own .pt files, then the file name and title.
    """
    settings = read_settings(source)
    for key in ("causal", "causal_ar"):
        if isinstance(settings.get(key), bool):
            return settings[key]
    class_name = settings.get("_class_name")
    if isinstance(class_name, str) and class_name in CAUSAL_BY_CLASS:
        return CAUSAL_BY_CLASS[class_name]
    if source.wrapper in ("generator", "generator_ema"):
        return True
    titles = (source.path.name, *(source.metadata.get(key, "") for key in TITLE_KEYS))
    return False if any(ORDINARY_WAN.match(title) for title in titles) else None


def _json_object(source: TensorSource, key: str) -> dict[str, Any]:
    try:
        content = json.loads(source.metadata.get(key, "{}"))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {source.path} has damaged metadata '{key}': {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {source.path} has metadata '{key}' that is no JSON object: {content!r:.80}")
    return cast("dict[str, Any]", content)
