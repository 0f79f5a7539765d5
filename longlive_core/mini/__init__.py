"""LongLive Mini, the embedded model: transformer, text encoder and VAE, small enough to ship with the code."""

from .config import LATENT_SIZE, MINI_DIT, MINI_VAE, PIXELS
from .loader import ASSETS, FILES, VAE_FILE, Mini, load_mini, load_vae, save_vae
from .text_encoder import TextEncoder

__all__ = [
    "ASSETS",
    "FILES",
    "LATENT_SIZE",
    "MINI_DIT",
    "MINI_VAE",
    "PIXELS",
    "VAE_FILE",
    "Mini",
    "TextEncoder",
    "load_mini",
    "load_vae",
    "save_vae",
]
