"""Loads the model of a render, the embedded one or a checkpoint of its shape, and computes its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..mini import MINI_DIT, Mini, load_mini
from ..model import CausalWan
from ..model.linears import quantize_linears
from ..take.settings import fingerprint, tensor_bytes
from ..weights import inspect_checkpoint, load_checkpoint, read_lora


def load_model(name: str) -> Mini:
    """Loads "mini", a folder that `longlive train mini` made, or "mini" with the transformer of a checkpoint.

    Raises FileNotFoundError, and ValueError for a full-size checkpoint before its weights are read.
    """
    if name == "mini":
        return load_mini()
    path = Path(name)
    if path.is_dir():
        return load_mini(path)
    config = inspect_checkpoint(path).config
    if (config.text_dim, config.channels) != (MINI_DIT.text_dim, MINI_DIT.channels):
        raise ValueError(
            f"checkpoint {path} takes text of width {config.text_dim} (dim {config.dim}, {config.num_layers} layers); "
            f"the command line renders models for the embedded text encoder's width {MINI_DIT.text_dim}. "
            "LongLive 5B runs inside ComfyUI"
        )
    return replace(load_mini(), model=load_checkpoint(path, dtype=torch.float32, text_len=MINI_DIT.text_len))


def change_linears(model: CausalWan, fp8: bool, lora: Path | None, strength: float) -> tuple[str, ...]:
    """Quantises the model's linear layers and adds a LoRA beside them; returns a note for each change."""
    notes: list[str] = []
    if fp8:
        notes.append(f"fp8: {quantize_linears(model, 'fp8')} layers with weights and activations in FP8")
    if lora is not None:
        notes.append(f"lora beside the layers: {read_lora(lora).add_bypass(model, strength).text()}")
    return tuple(notes)


def weights_fingerprint(mini: Mini, lora: Path | None) -> str:
    """Computes the fingerprint of all weights as loaded and of the LoRA's file; 0.1 s for the embedded model."""

    def parts() -> Iterator[bytes]:
        modules: tuple[nn.Module, ...] = (mini.model, mini.text, mini.vae)
        for module in modules:
            for name, value in module.state_dict().items():
                yield f"{name} {tuple(value.shape)} {value.dtype}".encode()
                yield tensor_bytes(value)
        if lora is not None:
            yield lora.read_bytes()

    return fingerprint(parts())
