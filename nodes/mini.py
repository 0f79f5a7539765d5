"""LongLive Mini as the host's MODEL, CLIP and VAE."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch
from comfy.supported_models_base import ClipTarget
from torch import Tensor, nn

from ..longlive_core.mini import Mini, TextEncoder
from .model import make_patcher
from .vae import MiniLatents

# The most bytes per latent cell that decoding and encoding take, measured at 128x128 px.
CELL_BYTES = 600_000


def mini_model(mini: Mini) -> comfy.model_patcher.ModelPatcher:
    """Makes a MODEL of the transformer."""
    return make_patcher(
        mini.model.config, mini.model.state_dict(), dtype=torch.float32, latent_format=MiniLatents(mini.vae)
    )


def mini_clip(mini: Mini) -> comfy.sd.CLIP:
    """Makes a CLIP of the text encoder."""
    return comfy.sd.CLIP(ClipTarget(MiniTokenizer, lambda **_: MiniTextModel(mini.text)))


class MiniTokenizer:
    """Passes the whole text on as one token, because the encoder splits it into words itself."""

    def __init__(self, **_: object) -> None:
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: object) -> dict[str, Any]:
        return {"mini": [[(text, 1.0, 0) if return_word_ids else (text, 1.0)]]}

    def state_dict(self) -> dict[str, Tensor]:
        return {}


class MiniTextModel(nn.Module):
    """The text encoder with the methods that the host calls."""

    dtypes = (torch.float32,)

    def __init__(self, text: TextEncoder) -> None:
        super().__init__()
        self.text = text

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[Tensor, None]:
        """Returns the embedding `[1, L, text_dim]` of the text, and None for the pooled embedding."""
        texts = [token[0] for chunk in tokens["mini"] for token in chunk]
        return self.text.encode(" ".join(texts)).unsqueeze(0), None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Does nothing: the encoder has no options."""

    def reset_clip_options(self) -> None:
        """Does nothing: the encoder has no options."""

    def load_sd(self, sd: dict[str, Tensor]) -> tuple[list[str], list[str]]:
        return self.load_state_dict(sd, strict=False)


class MiniVAE(comfy.sd.VAE):
    """A VAE of the host, for which VAE Decode, VAE Encode and their tiled versions work."""

    def __init__(self, mini: Mini) -> None:
        with _suppress_log("No VAE weights detected"):
            super().__init__(sd={})
        self.first_stage_model = mini.vae
        self.latent_channels, self.latent_dim = mini.vae.config.latent_channels, 3
        self.upscale_ratio = (lambda frames: max(0, frames * 4 - 3), 16, 16)
        self.upscale_index_formula = (4, 16, 16)
        self.downscale_ratio = (lambda frames: max(0, math.floor((frames + 3) / 4)), 16, 16)
        self.downscale_index_formula = (4, 16, 16)
        self.working_dtypes = [torch.float32]
        self.memory_used_decode = lambda shape, _: CELL_BYTES * math.prod(shape[2:])
        self.memory_used_encode = lambda shape, _: CELL_BYTES * math.prod(shape[2:]) // (4 * 16 * 16)
        self.device = comfy.model_management.vae_device()
        self.vae_dtype = torch.float32
        self.output_device = comfy.model_management.intermediate_device()
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model,
            load_device=self.device,
            offload_device=comfy.model_management.vae_offload_device(),
        )
        self.model_size()


@contextmanager
def _suppress_log(message: str) -> Iterator[None]:
    """Suppresses one line of the log: the host misses the weights that are set right after its constructor."""

    def is_other(record: logging.LogRecord) -> bool:
        return message not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_other)
    try:
        yield
    finally:
        root.removeFilter(is_other)
