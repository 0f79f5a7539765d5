"""A cast file of a picture, for models that were trained on blocks of films: an experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..mini import Mini
from ..take.cast_file import TRANSFORMER, Card
from ..types import BLOCK_FRAMES, LATENT_CHANNELS, LatentShape
from ..vae.encode_clip import encode_chunks
from .load_model import load_model, transformer_of, weights_fingerprint
from .settings import latent_size


def card_of_image(path: Path, name: str, prompt: str, model: str = "mini", mini: Mini | None = None) -> Card:
    """Makes the card of a picture, whose latent frame fills the block: it stands still in it.

    model: as of `RenderSettings`, without LoRAs. mini: replaces that model. Raises ValueError for a file that is no
    picture and for a size that the model cannot make, FileNotFoundError, and as `load_model`.
    """
    mini = mini or load_model(model)
    try:
        with Image.open(path) as image:
            picture = torch.from_numpy(np.array(ImageOps.exif_transpose(image).convert("RGB")))
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no picture that can be read; name a PNG or JPEG file") from error
    height, width, _ = picture.shape
    try:
        size = latent_size(f"{height}x{width}", mini.pixel_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}, by scaling and cropping the picture to the size of the films") from error
    shape = LatentShape(1, LATENT_CHANNELS, 1, *size)
    with torch.inference_mode():
        (latent,) = encode_chunks((picture.unsqueeze(0),), mini.vae, shape, lambda: None)
    made_by = {
        "weights": weights_fingerprint(mini, ()),
        "size": f"{height}x{width}",
        "block_frames": BLOCK_FRAMES,
        TRANSFORMER: transformer_of(mini, ()),
    }
    latents = latent.clone().expand(-1, -1, BLOCK_FRAMES, -1, -1).contiguous()
    return Card(name, latents, prompt, f"the picture {path.name}", made_by, picture)
