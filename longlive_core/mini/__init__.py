"""LongLive Mini, the embedded model: transformer, text encoder and VAE, small enough to ship with the code."""

from .config import LATENT_SIZE, MINI_DIT, MINI_VAE, PIXELS
from .loader import ASSETS, FILES, Mini, load_mini
from .text_encoder import TextEncoder

__all__ = ["ASSETS", "FILES", "LATENT_SIZE", "MINI_DIT", "MINI_VAE", "PIXELS", "Mini", "TextEncoder", "load_mini"]
