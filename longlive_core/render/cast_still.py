"""What a cast file has of the model of its film: a picture, and the fingerprint that ComfyUI compares."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..mini import Mini
from ..pipeline.decode import decode
from ..pipeline.stills import opening_pieces
from ..take import Take
from ..take.cast_file import TRANSFORMER, Card
from ..take.settings import COMFYUI
from ..types import Block, BlockSpec
from ..vae import DecodeStream, WanVAE
from .load_model import load_model, transformer_of, weights_fingerprint


def with_model(take: Take, card: Card, mini: Mini | None = None) -> tuple[Card, str]:
    """Returns the card of a take's block with what the model of its film adds, and a note if that is missing.

    mini: replaces that model.
    """
    model, lora = str(take.settings.get("model")), take.settings.get("lora")
    if mini is None and model == COMFYUI:
        return card, "no picture: the film was made in ComfyUI, whose VAE the take does not name"
    try:
        mini = mini or load_model(model)
    except (ValueError, OSError) as error:
        return card, f"no picture: {error}"
    card = replace(card, still=still_of(card, mini.vae))
    if lora is None and weights_fingerprint(mini, ()) == take.settings.get("weights"):
        card = replace(card, made_by={**card.made_by, TRANSFORMER: transformer_of(mini, ())})
    return card, ""


def still_of(card: Card, vae: WanVAE) -> Tensor:
    """Decodes a picture `[H, W, 3]` uint8 of a block."""
    spec = BlockSpec(0, 0, card.prompt, cut=False, seed=None, start=0, frames=card.latents.shape[2])
    with torch.inference_mode():
        pieces = opening_pieces([Block(spec, card.latents)])
        pictures = (
            frame.frames.wait()[-1].clone()
            for frame in decode(pieces, DecodeStream(vae), lambda: False)
            if frame.last and frame.frames is not None
        )
        return next(pictures)
