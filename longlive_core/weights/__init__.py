"""Checkpoints and LoRAs: what is in a file, whose it is, and the transformer it holds or changes."""

from .checkpoint import Checkpoint, inspect_checkpoint, load_checkpoint
from .lora import Lora, LoraLayer, read_lora
from .lora_report import LoraReport
from .source import CheckpointError, TensorSource, TensorSpec, open_source

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Lora",
    "LoraLayer",
    "LoraReport",
    "TensorSource",
    "TensorSpec",
    "inspect_checkpoint",
    "load_checkpoint",
    "open_source",
    "read_lora",
]
