"""Checkpoints: what is in a file, whose it is, and the transformer it holds."""

from .checkpoint import load_checkpoint
from .source import CheckpointError, TensorSource, TensorSpec, open_source

__all__ = ["CheckpointError", "TensorSource", "TensorSpec", "load_checkpoint", "open_source"]
