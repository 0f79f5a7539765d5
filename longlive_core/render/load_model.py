"""The model of a render: the embedded one or a checkpoint of its shape, and its fingerprint."""

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
    """The embedded model, a trained folder of it, or the embedded model with the transformer of a checkpoint.

    Raises FileNotFoundError or ValueError; a full-size checkpoint is refused before its weights are read.
    """
    if name == "mini":
        return load_mini()
    path = Path(name)
    if path.is_dir():
        return load_mini(path)
    config = inspect_checkpoint(path).config
    own = MINI_DIT
    if (config.text_dim, config.channels) != (own.text_dim, own.channels):
        raise ValueError(
            f"checkpoint {path} takes text of width {config.text_dim} (dim {config.dim}, {config.num_layers} layers); "
            f"the command line renders models of the embedded text encoder's width {own.text_dim}. "
            "LongLive 5B runs inside ComfyUI"
        )
    return replace(load_mini(), model=load_checkpoint(path, dtype=torch.float32, text_len=own.text_len))


def change_linears(model: CausalWan, fp8: bool, lora: Path | None, strength: float) -> tuple[str, ...]:
    """Quantises the model's layers and puts the LoRA beside them; returns a note for each."""
    notes: list[str] = []
    if fp8:
        notes.append(f"fp8: {quantize_linears(model, 'fp8')} layers with weights and activations in FP8")
    if lora is not None:
        notes.append(f"lora beside the layers: {read_lora(lora).beside(model, strength).text()}")
    return tuple(notes)


def weights_fingerprint(mini: Mini, lora: Path | None) -> str:
    """The fingerprint of every weight as loaded, and of the LoRA's file; 0.1 s at toy size."""

    def parts() -> Iterator[bytes]:
        modules: tuple[nn.Module, ...] = (mini.model, mini.text, mini.vae)
        for module in modules:
            for name, value in module.state_dict().items():
                yield f"{name} {tuple(value.shape)} {value.dtype}".encode()
                yield tensor_bytes(value)
        if lora is not None:
            yield lora.read_bytes()

    return fingerprint(parts())
