"""A model by its files, as ComfyUI loads it, which each rank reads by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..mini import load_mini
from ..model import CausalWan
from ..model.attention import default_attention
from ..model.fp8_gate import AttentionFormat, choose_attention
from ..model.linears import quantize_linears
from ..parallel import Ranks
from ..sampling import RankModel
from ..weights import load_checkpoint, read_lora


@dataclass(frozen=True)
class SharedLora:
    """A LoRA file; merged into the weights, or else beside the layers."""

    path: Path
    strength: float
    merged: bool


@dataclass(frozen=True)
class SharedModel:
    """A checkpoint, or LongLive Mini without one, with LoRAs in the order in which they were applied.

    dtype: in which it computes. fp8: with linear layers in FP8, see `quantize_linears`.
    """

    checkpoint: Path | None
    dtype: torch.dtype
    text_len: int
    loras: tuple[SharedLora, ...] = ()
    attention: AttentionFormat = "usual"
    fp8: bool = False

    @property
    def stamp(self) -> tuple[tuple[int, int], ...]:
        """What differs when a file was replaced. Raises OSError for a file that is gone."""
        files = [lora.path for lora in self.loras] + ([] if self.checkpoint is None else [self.checkpoint])
        return tuple((about.st_mtime_ns, about.st_size) for about in (file.stat() for file in files))


def load_shared(ranks: Ranks, shared: SharedModel) -> RankModel:
    """Loads the model on a rank. Raises CheckpointError and OSError."""
    model = _load(shared, ranks.device)
    if shared.fp8:
        quantize_linears(model, "fp8")
    for lora in (lora for lora in shared.loras if lora.merged):
        model.load_state_dict(read_lora(lora.path).merge(model.state_dict(), lora.strength), assign=True)
    for lora in (lora for lora in shared.loras if not lora.merged):
        read_lora(lora.path).add_bypass(model, lora.strength)
    usual = default_attention(model.device)
    return RankModel(model, choose_attention(model, usual, shared.attention).function)


def _load(shared: SharedModel, device: str) -> CausalWan:
    if shared.checkpoint is None:
        return load_mini().model.to(device, shared.dtype)
    return load_checkpoint(shared.checkpoint, dtype=shared.dtype, device=device, text_len=shared.text_len)
