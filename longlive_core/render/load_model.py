"""Loads the model of a render, the embedded one or a checkpoint of its shape, and computes its fingerprint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..mini import MINI_DIT, Mini, load_mini
from ..model import CausalWan
from ..model.linears import quantize_linears
from ..take.settings import fingerprint, tensor_bytes
from ..take.transformer import transformer_fingerprint
from ..weights import Lora, LoraFile, inspect_checkpoint, load_checkpoint, read_lora
from ..weights.lora_file import check_not_merged
from ..weights.metadata import causal_note, merged_loras
from .settings import names_checkpoint


def load_model(name: str) -> Mini:
    """Loads "mini", a folder that `longlive train mini` made, or "mini" with the transformer of a checkpoint.

    Raises FileNotFoundError, and ValueError for a full-size checkpoint before its weights are read.
    """
    if name == "mini":
        return load_mini()
    path = Path(name)
    if path.is_dir() and not names_checkpoint(name):
        return load_mini(path)
    config = inspect_checkpoint(path).config
    if (config.text_dim, config.channels) != (MINI_DIT.text_dim, MINI_DIT.channels):
        raise ValueError(
            f"checkpoint {path} takes text of width {config.text_dim} (dim {config.dim}, {config.num_layers} layers); "
            f"the command line renders models for the embedded text encoder's width {MINI_DIT.text_dim}. "
            "LongLive 5B runs inside ComfyUI"
        )
    return replace(load_mini(), model=load_checkpoint(path, dtype=torch.float32, text_len=MINI_DIT.text_len))


def model_notes(name: str) -> tuple[str, ...]:
    """Returns a note if the model is a checkpoint that does not say whether it is causal."""
    checkpoint = inspect_checkpoint(name) if names_checkpoint(name) else None
    return () if checkpoint is None or checkpoint.causal else (causal_note(checkpoint.source),)


def read_loras(model: str, files: Sequence[LoraFile]) -> list[tuple[Lora, float]]:
    """Reads LoRAs for a model; returns each with its strength.

    Raises CheckpointError as `read_lora`, and for a LoRA that is merged into the model's checkpoint already.
    """
    if names_checkpoint(model):
        source = inspect_checkpoint(model).source
        for file in files:
            check_not_merged(source.path, merged_loras(source), file.path)
    return [(read_lora(file.path), file.strength) for file in files]


def change_linears(model: CausalWan, fp8: bool, loras: Sequence[tuple[Lora, float]]) -> tuple[str, ...]:
    """Quantises the model's linear layers and adds LoRAs beside them; returns a note for each change."""
    notes: list[str] = []
    if fp8:
        notes.append(f"fp8: {quantize_linears(model, 'fp8')} layers with weights and activations in FP8")
    for lora, strength in loras:
        report = lora.add_bypass(model, strength)
        notes.append(f"lora {lora.path.name}, strength {strength:g}, beside the layers: {report.text()}")
    return tuple(notes)


def weights_fingerprint(mini: Mini, loras: Sequence[tuple[Lora, float]]) -> str:
    """Computes the fingerprint of all weights as loaded and of the LoRAs' files; 0.1 s for the embedded model.

    The strength of a single LoRA is a setting of its own; those of several are in the fingerprint.
    """

    def parts() -> Iterator[bytes]:
        modules: tuple[nn.Module, ...] = (mini.model, mini.text, mini.vae)
        for module in modules:
            for name, value in module.state_dict().items():
                yield f"{name} {tuple(value.shape)} {value.dtype}".encode()
                yield tensor_bytes(value)
        for lora, strength in loras:
            yield from (file.read_bytes() for file in lora.files)
            if len(loras) > 1:
                yield repr(strength).encode()

    return fingerprint(parts())


def transformer_of(mini: Mini, loras: Sequence[tuple[Lora, float]]) -> str:
    """The `transformer_fingerprint` of a model as loaded, "" with LoRAs."""
    return "" if loras else transformer_fingerprint(dict(mini.model.named_parameters()), len(mini.model.state_dict()))
