"""The alpha of a LoRA by its file's metadata; a layer's change is scaled by alpha / rank."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, cast

from .lora_names import wan_layer
from .tensor_source import CheckpointError, TensorSource

# What trainers call it: peft and diffusers, others, kohya.
NAMES = ("lora_alpha", "network_alpha", "ss_network_alpha", "alpha")

# Where peft's adapter config stands as JSON, and what diffusers puts before its names.
CONFIG_KEYS = ("lora_adapter_metadata", "adapter_config", "adapter_config.json", "peft_config", "config", "longlive")
DIFFUSERS_PREFIX = "transformer."


def read_alphas(source: TensorSource) -> Mapping[str, float]:
    """Layer pattern -> alpha, with the alpha of all other layers under the empty name; empty where nothing is said.

    Raises CheckpointError for an alpha that is no finite number, and for settings that scale in other ways
    (`use_rslora`), which would change the picture without a word.
    """
    tables: list[dict[str, Any]] = [{**source.metadata}]
    for name in CONFIG_KEYS:
        tables += _config(source.metadata.get(name, ""))
    said = {name.removeprefix(DIFFUSERS_PREFIX): value for table in reversed(tables) for name, value in table.items()}
    if said.get("use_rslora") in (True, "true", "True"):
        raise CheckpointError(
            f"lora {source.path} is scaled by alpha / sqrt(rank) (use_rslora), which is not supported; "
            "save it with a plain alpha"
        )
    found = next((said[name] for name in NAMES if said.get(name) not in (None, "None", "Dynamic")), None)
    pattern: object = said.get("alpha_pattern")
    patterns = cast("dict[str, object]", pattern) if isinstance(pattern, dict) else {}
    alphas = {wan_layer(name): alpha for name, alpha in patterns.items()}
    return {n: number(source, a) for n, a in {**alphas, **({} if found is None else {"": found})}.items()}


def layer_alpha(layer: str, alphas: Mapping[str, float], rank: int) -> float:
    """The alpha of a layer: its pattern's, as peft matches it, else that of all layers, else its rank (scale 1)."""
    for pattern, alpha in alphas.items():
        if pattern and re.fullmatch(rf"(.*\.)?{re.escape(pattern)}", layer):
            return alpha
    return alphas.get("", float(rank))


def number(source: TensorSource, value: object) -> float:
    """`value` as a finite number. Raises CheckpointError."""
    try:
        alpha = float(cast("str", value))
    except (TypeError, ValueError):
        alpha = float("nan")
    if not isfinite(alpha):
        raise CheckpointError(f"lora {source.path} has alpha {value!r:.40}, which is no finite number")
    return alpha


def _config(text: str) -> list[dict[str, Any]]:
    """The JSON object in `text`; none where it is something else, for the name may be another program's."""
    try:
        content = json.loads(text)
    except ValueError:
        return []
    return [cast("dict[str, Any]", content)] if isinstance(content, dict) else []
