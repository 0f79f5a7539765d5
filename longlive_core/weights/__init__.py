"""Checkpoints and LoRAs: reads, checks, loads and converts the file formats that Wan transformers come in."""

from .checkpoint import Checkpoint, inspect_checkpoint, load_checkpoint
from .convert import Conversion, convert_checkpoint
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
