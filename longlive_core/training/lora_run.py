"""The stage of a run that trains a LoRA on encoded clips, as the command line and ComfyUI make it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from ..memory import TextEncoder
from ..model import CausalWan
from ..take.settings import fingerprint
from .clip_cache import EncodedClip
from .clip_source import ClipSource
from .lora_stage import LoraStage, Prior
from .settings import LoraRun
from .stage import Origin


def check_peft() -> None:
    """Raises ValueError without the package that LoRAs are trained with."""
    if find_spec("peft") is None:
        raise ValueError("training a LoRA needs the package peft: pip install peft, or install the extra 'train'")


def data_digest(clips: Sequence[EncodedClip]) -> str:
    """Digest of the clips' latents, cuts and prompts, whatever their order and names."""
    shown = [f"{clip.file.stem[-16:]} {clip.layout}" for clip in clips]
    return fingerprint(part.encode() for part in sorted(shown))


def lora_stage(
    run: LoraRun,
    clips: Sequence[EncodedClip],
    prior: Sequence[EncodedClip],
    model: CausalWan,
    encode: TextEncoder,
    base: Origin,
    device: torch.device,
) -> LoraStage:
    """Moves the base to the device and makes the stage, in which it gets the LoRA.

    prior: clips of `run.prior`; empty for none. encode: prompt → `[L, text_dim]`, called here. base: name and digest of
    the model. Raises CheckpointError as `LoraStage`.
    """
    origins = {"base": base, "data": Origin(run.data.name, data_digest(clips))}
    if run.prior is not None:
        origins["prior"] = Origin(run.prior.name, data_digest(prior))
    model.to(device)
    source = ClipSource(clips, encode, batch=run.clips, rope_offset=run.rope_offset, device=device)
    known = ClipSource(prior, encode, batch=run.clips, rope_offset=run.rope_offset, device=device) if prior else None
    return LoraStage(
        model,
        source,
        run.ar,
        run.settings,
        run.optimiser,
        run.trainer.seed,
        rope_offset=run.rope_offset,
        start=run.lora,
        prior=None if known is None else Prior(known, run.prior_weight),
        origins=origins,
    )
