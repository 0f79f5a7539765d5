"""Reads the scales of LoRA layers, alpha / rank, from a file's metadata and peft's configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any, cast

from .lora_names import LoraName, wan_layer
from .names import strip_prefixes
from .tensor_source import CheckpointError, TensorSource

# The names of alpha in the order of preference: peft and diffusers, other trainers, kohya.
ALPHA_KEYS = ("lora_alpha", "network_alpha", "ss_network_alpha", "alpha")

# Metadata keys that hold peft's adapter configuration as JSON, and the prefix of diffusers' names in it.
CONFIG_KEYS = ("lora_adapter_metadata", "adapter_config", "adapter_config.json", "peft_config", "config", "longlive")
DIFFUSERS_PREFIX = "transformer."

# peft's folder: the configuration beside the weights.
CONFIG_FILE, WEIGHTS_STEM = "adapter_config.json", "adapter_model"


@dataclass(frozen=True, slots=True)
class LoraScales:
    """The alphas of a file without the layers' own. patterns: peft's `alpha_pattern`. alpha: of all other layers, None
    for the rank. root: whether the scale is alpha / sqrt(rank), peft's `use_rslora`. dora: whether the file says so.
    """

    patterns: Mapping[str, float]
    alpha: float | None
    root: bool
    dora: bool

    def of(self, name: LoraName, rank: int) -> float:
        """Returns the alpha of a layer, so that its scale is alpha / rank.

        As in peft, a pattern is a regular expression for the end of the layer's own name, whole parts of it. Wan's name
        of a layer and of a pattern count too, since tools rename the layers and keep the patterns.
        """
        alpha = next((a for pattern, a in self.patterns.items() if _matches(pattern, name)), self.alpha)
        return float(rank) if alpha is None else alpha * sqrt(rank) if self.root else alpha


def read_scales(source: TensorSource) -> LoraScales:
    """Reads the scales of a file. Raises CheckpointError for an alpha that is not a finite number, for a pattern that
    is no regular expression, and for an adapter of another kind than LoRA, LoHa and LoKr.
    """
    tables: list[Mapping[str, Any]] = [
        source.metadata,
        *(_json_object(source.metadata.get(key, "")) for key in CONFIG_KEYS),
    ]
    tables.append(_folder_config(source.path))
    # Earlier tables take precedence.
    config = {key.removeprefix(DIFFUSERS_PREFIX): value for table in reversed(tables) for key, value in table.items()}
    kind = str(config.get("peft_type", "LORA")).rpartition(".")[2].upper()
    if kind not in ("LORA", "LOHA", "LOKR"):
        raise CheckpointError(
            f"lora {source.path} is an adapter of the kind {kind}; LongLive reads LoRA, LoHa and LoKr"
        )
    alpha = next((config[key] for key in ALPHA_KEYS if config.get(key) not in (None, "None", "Dynamic")), None)
    pattern: object = config.get("alpha_pattern")
    patterns = cast("dict[str, object]", pattern) if isinstance(pattern, dict) else {}
    for key in patterns:
        try:
            re.compile(key)
        except re.error as error:
            raise CheckpointError(f"lora {source.path}: the alpha_pattern {key!r} is no pattern ({error})") from error
    return LoraScales(
        {key: parse_alpha(source, value) for key, value in patterns.items()},
        None if alpha is None else parse_alpha(source, alpha),
        root=_is_true(config.get("use_rslora")),
        dora=_is_true(config.get("use_dora")) or _is_true(_json_object(config.get("ss_network_args")).get("dora_wd")),
    )


def parse_alpha(source: TensorSource, value: object) -> float:
    """Converts `value` to a finite number. Raises CheckpointError."""
    try:
        alpha = float(cast("str", value))
    except (TypeError, ValueError):
        alpha = float("nan")
    if not isfinite(alpha):
        raise CheckpointError(f"lora {source.path} has alpha {value!r:.40}, which is not a finite number")
    return alpha


def _matches(pattern: str, name: LoraName) -> bool:
    names = (name.own, strip_prefixes(f"{name.own}.")[:-1], name.layer)
    renamed = re.fullmatch(rf"(?:.*\.)?{re.escape(wan_layer(pattern))}", name.layer)
    return renamed is not None or any(re.fullmatch(rf"(?:.*\.)?(?:{pattern})", each) for each in names)


def config_file(path: Path) -> Path | None:
    """peft's configuration beside the file, if it belongs to it: peft's own name, or the only file of weights there."""
    config = path.with_name(CONFIG_FILE)
    if not config.is_file():
        return None
    weights = [p for p in path.parent.iterdir() if p.suffix in (".safetensors", ".sft", ".pt", ".pth", ".bin")]
    return config if path.stem == WEIGHTS_STEM or weights == [path] else None


def _folder_config(path: Path) -> Mapping[str, Any]:
    """Reads peft's configuration beside the file; empty without one."""
    config = config_file(path)
    if config is None:
        return {}
    table = _json_object(config.read_text("utf-8", errors="replace"))
    if not table:
        raise CheckpointError(f"lora {path}: {config} beside it is damaged; copy it again, or remove it")
    return table


def _is_true(value: object) -> bool:
    return value is True or str(value).lower() == "true"


def _json_object(text: object) -> dict[str, Any]:
    """Returns the JSON object in `text`, or an empty one: another program may use the same key for other content."""
    try:
        content = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}
