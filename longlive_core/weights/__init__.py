"""Checkpoints and LoRAs: what is in a file, whose it is, the transformer it holds or changes, and other formats
of it."""

from .checkpoint import Checkpoint, inspect_checkpoint, load_checkpoint
from .conversion_check import Conversion
from .convert import convert_checkpoint
from .lora import Lora, LoraLayer, read_lora
from .lora_report import LoraReport
from .tensor_source import CheckpointError, TensorSource, TensorSpec, open_source

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Conversion",
    "Lora",
    "LoraLayer",
    "LoraReport",
    "TensorSource",
    "TensorSpec",
    "convert_checkpoint",
    "inspect_checkpoint",
    "load_checkpoint",
    "open_source",
    "read_lora",
]
