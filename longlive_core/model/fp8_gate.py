"""The gate of FP8 attention: it is used in the layers whose output it changes little, which a probe measures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor

from .attention import Attention, AttentionByLayer
from .flow import FlowModel
from .fp8_attention import FP8Attention, find_fp8_attention
from .kv_cache import KeyValue, Projected
from .rope import Rope

log = logging.getLogger(__name__)

AttentionFormat = Literal["usual", "fp8"]
ATTENTION_FORMATS: Final[tuple[AttentionFormat, ...]] = ("usual", "fp8")
"""The number formats of self-attention: the model's own, or E4M3 where the gate lets it."""

MIN_COSINE: Final = 0.995
"""A layer falls back below this, where its output is off by a tenth of its length. E4M3 alone gives 0.9995."""

PROBE: Final = (8, 16, 16)
"""Frames, height and width of the noise that the probe feeds, in latent cells."""


def choose_attention(model: FlowModel, usual: Attention, wanted: AttentionFormat) -> AttentionChoice:
    """The attention function of a loaded model, with a note, which is logged too. usual: of the format `usual`.

    Runs the model once for `fp8`. Raises ValueError for an unknown format, and nothing if FP8 cannot be used.
    """
    if wanted not in ATTENTION_FORMATS:
        raise ValueError(f"attention '{wanted}' is not known; choose one of {', '.join(ATTENTION_FORMATS)}")
    if wanted == "usual":
        return AttentionChoice(usual)
    choice = _gated(model, usual, find_fp8_attention(model.device, model.config.head_dim))
    log.info("%s", *choice.notes)
    return choice


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """An attention function, and what the user should know of it: nothing or one line."""

    function: Attention
    notes: tuple[str, ...] = ()


def _gated(model: FlowModel, usual: Attention, fp8: FP8Attention | None) -> AttentionChoice:
    if fp8 is None:
        where = f"{model.device.type} with heads of {model.config.head_dim} channels"
        return AttentionChoice(usual, (f"fp8 attention: none is installed for {where}; attention stays as it is",))
    try:
        cosines = layer_cosines(model, usual, fp8)
    except (ImportError, RuntimeError, ValueError, TypeError) as error:
        reason = f"{fp8.name} cannot be used ({type(error).__name__}: {error})"
        return AttentionChoice(usual, (f"fp8 attention: {reason}; attention stays as it is",))
    failed = [layer for layer, cosine in enumerate(cosines) if not cosine >= MIN_COSINE]
    note = f"fp8 attention: {fp8.name} in {len(cosines) - len(failed)} of {len(cosines)} layers"
    if failed:
        found = ", ".join(f"{layer} ({cosines[layer]:.4f})" for layer in failed)
        note += f"; below a cosine of {MIN_COSINE:g} and as before: layers {found}"
    else:
        note += f", cosine {min(cosines):.4f} or more"
    passed = {layer: fp8 for layer in range(len(cosines)) if layer not in failed}
    return AttentionChoice(AttentionByLayer(usual, passed) if passed else usual, (note,))


@torch.inference_mode()
def layer_cosines(model: FlowModel, usual: Attention, fp8: Attention) -> tuple[float, ...]:
    """Cosine of each layer's self-attention in FP8 with that of `usual`, which the model goes on with.

    The model gets a block of noise at the first timestep and an empty prompt. A result that is not finite has a cosine
    of NaN. Raises what `fp8` raises.
    """
    frames, height, width = PROBE
    device, dtype, config = model.device, model.dtype, model.config
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, config.channels, frames, height, width, generator=generator).to(device, dtype)
    text = _ProbeText(model.text_kv(torch.zeros(1, 1, config.text_dim, device=device, dtype=dtype)), usual)
    probe = _Probe(usual, fp8)
    positions = torch.arange(frames, dtype=torch.float64, device=device)
    model(noise, torch.full((1, frames), 999.0, device=device), text, probe, positions)
    return tuple(torch.stack(probe.cosines).tolist())


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    """2 x·y / (|x|² + |y|²): the cosine of tensors of one length; it is lower for a wrong scale, which no cosine sees.

    Returns a scalar in float64.
    """
    x, y = x.flatten().double(), y.flatten().double()
    return 2 * torch.dot(x, y) / (torch.dot(x, x) + torch.dot(y, y))


@dataclass(frozen=True, slots=True)
class _ProbeText:
    """`TextKVCache` of one prompt."""

    layers: Sequence[KeyValue]
    attention: Attention

    def attend(self, layer: int, q: Tensor) -> Tensor:
        """See `TextKVCache.attend`."""
        return self.attention(q, *self.layers[layer])


@dataclass(frozen=True, slots=True)
class _Probe:
    """`KVCache` of a block without history, which compares two attention functions in each layer."""

    usual: Attention
    fp8: Attention
    cosines: list[Tensor] = field(default_factory=list[Tensor])

    def attend(self, layer: int, q: Projected, k: Projected, v: Tensor, rope: Rope) -> Tensor:  # noqa: ARG002
        """See `KVCache.attend`."""
        qkv = q.rotated(rope), k.rotated(rope), v.contiguous()
        expected = self.usual(*qkv)
        self.cosines.append(_cosine(self.fp8(*qkv), expected))
        return expected

    def store(self, layer: int, k: Projected, v: Tensor, rope: Rope) -> None:
        """Does nothing: no later block attends this one."""
