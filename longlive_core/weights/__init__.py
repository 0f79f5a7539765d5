"""Checkpoints: what is in a file, whose it is, and the transformer it holds."""

from .checkpoint import Checkpoint, inspect_checkpoint, load_checkpoint
from .source import CheckpointError, TensorSource, TensorSpec, open_source

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "TensorSource",
    "TensorSpec",
    "inspect_checkpoint",
    "load_checkpoint",
    "open_source",
]
