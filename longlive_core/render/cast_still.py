"""The picture in a cast file."""

from __future__ import annotations

import torch
from torch import Tensor

from ..mini import Mini
from ..pipeline.decode import decode
from ..pipeline.stills import opening_pieces
from ..take import Take
from ..take.cast_file import Card
from ..take.settings import COMFYUI
from ..types import Block, BlockSpec
from ..vae import DecodeStream
from .load_model import load_model


def still_of(take: Take, card: Card, mini: Mini | None = None) -> tuple[Tensor | None, str]:
    """Decodes a picture `[H, W, 3]` uint8 of a block by the model of its film; returns it and a note if there is none.

    mini: replaces that model.
    """
    model = str(take.settings.get("model"))
    if mini is None and model == COMFYUI:
        return None, "no picture: the film was made in ComfyUI, whose VAE the take does not name"
    try:
        vae = (mini or load_model(model)).vae
    except (ValueError, OSError) as error:
        return None, f"no picture: {error}"
    spec = BlockSpec(0, 0, card.prompt, cut=False, seed=None, start=0, frames=card.latents.shape[2])
    with torch.inference_mode():
        pieces = opening_pieces([Block(spec, card.latents)])
        for frame in decode(pieces, DecodeStream(vae), lambda: False):
            if frame.last and frame.frames is not None:
                return frame.frames.wait()[-1].clone(), ""
    return None, "no picture: decoding gave no frame"
