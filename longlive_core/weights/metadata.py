"""What a checkpoint says of itself where shapes say nothing: its heads, its text length, and whether it is causal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from .tensor_source import CheckpointError, TensorSource

# Classes that write their own name into `config`: the official trainer's, Wan's and diffusers'.
CAUSAL_BY_CLASS = {"CausalWanModel": True, "WanModel": False, "WanTransformer3DModel": False}

# The ordinary Wan2.2 5B as it is repackaged: wan2.2_ti2v_5B_fp16, Wan2_2-TI2V-5B_fp8_e4m3fn_scaled_KJ …
ORDINARY_WAN = re.compile(r"wan[-_ ]?2[._]2[-_ ]ti2v[-_ ]5b(?!.*(longlive|causal|forcing))", re.IGNORECASE)

# Where files say their model's name in words.
TITLE_KEYS = ("modelspec.architecture", "modelspec.title")


def read_settings(source: TensorSource) -> Mapping[str, Any]:
    """The settings in a file's metadata: `config`, flat or as core nests it under `transformer`, and `longlive`.

    Raises CheckpointError where one of them is not a JSON object.
    """
    config, own = _table(source, "config"), _table(source, "longlive")
    nested = config.get("transformer")
    return {**config, **(cast("dict[str, Any]", nested) if isinstance(nested, dict) else {}), **own}


def is_causal(source: TensorSource) -> bool | None:
    """Whether the model was made to see only the past: True or False where the file tells it, else None.

    A causal model and the ordinary one have the same names and shapes. The file's metadata is asked first (`longlive`,
    core's `causal_ar`, the name of a class), then the wrapper of LongLive's own .pt, then the name of the file.
    """
    settings = read_settings(source)
    for name in ("causal", "causal_ar"):
        if isinstance(settings.get(name), bool):
            return settings[name]
    kind = settings.get("_class_name")
    if isinstance(kind, str) and kind in CAUSAL_BY_CLASS:
        return CAUSAL_BY_CLASS[kind]
    if source.table in ("generator", "generator_ema"):
        return True
    titles = (source.path.name, *(source.metadata.get(title, "") for title in TITLE_KEYS))
    return False if any(ORDINARY_WAN.match(title) for title in titles) else None


def _table(source: TensorSource, name: str) -> dict[str, Any]:
    try:
        content = json.loads(source.metadata.get(name, "{}"))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {source.path} has damaged metadata '{name}' ({error})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {source.path} has metadata '{name}' that is no JSON object: {content!r:.80}")
    return cast("dict[str, Any]", content)
