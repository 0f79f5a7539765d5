"""Checkpoints and LoRAs: reads, checks, loads and converts the file formats that Wan transformers come in."""

from .checkpoint import Checkpoint, inspect_checkpoint, load_checkpoint
from .convert import Conversion, convert_checkpoint
from .lora import Lora
from .lora_file import LoraFile
from .lora_layer import LoraLayer
from .lora_reader import read_lora
from .lora_report import LoraReport
from .open_source import open_source
from .tensor_source import CheckpointError, TensorSource, TensorSpec

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Conversion",
    "Lora",
    "LoraFile",
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
