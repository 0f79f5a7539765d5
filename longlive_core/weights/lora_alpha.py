"""Reads the alpha of LoRA layers from the metadata of a file; the update of a layer is scaled by alpha / rank."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, cast

from .lora_names import wan_layer
from .tensor_source import CheckpointError, TensorSource

# The names of alpha in the order of preference: peft and diffusers, other trainers, kohya.
ALPHA_KEYS = ("lora_alpha", "network_alpha", "ss_network_alpha", "alpha")

# Metadata keys that hold peft's adapter configuration as JSON, and the prefix of diffusers' names in it.
CONFIG_KEYS = ("lora_adapter_metadata", "adapter_config", "adapter_config.json", "peft_config", "config", "longlive")
DIFFUSERS_PREFIX = "transformer."


def read_alphas(source: TensorSource) -> Mapping[str, float]:
    """Returns layer pattern -> alpha; the empty pattern is for all other layers. Empty if the file gives no alpha.

    Raises CheckpointError for an alpha that is not a finite number, and for `use_rslora`, because its other scale
    would change the film without notice.
    """
    tables: list[dict[str, Any]] = [{**source.metadata}]
    for key in CONFIG_KEYS:
        tables += _json_objects(source.metadata.get(key, ""))
    # Earlier tables take precedence.
    config = {key.removeprefix(DIFFUSERS_PREFIX): value for table in reversed(tables) for key, value in table.items()}
    if config.get("use_rslora") in (True, "true", "True"):
        raise CheckpointError(
            f"lora {source.path} is scaled by alpha / sqrt(rank) (use_rslora), which is not supported; "
            "save it with a plain alpha"
        )
    file_alpha = next((config[key] for key in ALPHA_KEYS if config.get(key) not in (None, "None", "Dynamic")), None)
    pattern: object = config.get("alpha_pattern")
    patterns = cast("dict[str, object]", pattern) if isinstance(pattern, dict) else {}
    alphas = {wan_layer(name): alpha for name, alpha in patterns.items()}
    alphas |= {} if file_alpha is None else {"": file_alpha}
    return {layer: parse_alpha(source, alpha) for layer, alpha in alphas.items()}


def layer_alpha(layer: str, alphas: Mapping[str, float], rank: int) -> float:
    """Returns the alpha of the first pattern that matches the layer as in peft, else the file's, else the rank."""
    for pattern, alpha in alphas.items():
        if pattern and re.fullmatch(rf"(.*\.)?{re.escape(pattern)}", layer):
            return alpha
    return alphas.get("", float(rank))


def parse_alpha(source: TensorSource, value: object) -> float:
    """Converts `value` to a finite number. Raises CheckpointError."""
    try:
        alpha = float(cast("str", value))
    except (TypeError, ValueError):
        alpha = float("nan")
    if not isfinite(alpha):
        raise CheckpointError(f"lora {source.path} has alpha {value!r:.40}, which is not a finite number")
    return alpha


def _json_objects(text: str) -> list[dict[str, Any]]:
    """Returns the JSON object in `text`, or nothing: another program may use the same key for other content."""
    try:
        content = json.loads(text)
    except ValueError:
        return []
    return [cast("dict[str, Any]", content)] if isinstance(content, dict) else []
