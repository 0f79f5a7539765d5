"""Sizes of the embedded model: pixels, latents, transformer and VAE."""

from __future__ import annotations

from ..model import WanConfig
from ..vae import VAEConfig

# Width and height of the frames in pixels, and [H, W] of the latents: the VAE downsamples by 16.
PIXELS = 128
LATENT_SIZE = (PIXELS // 16, PIXELS // 16)

MINI_DIT = WanConfig(
    dim=192, ffn_dim=768, num_heads=6, num_layers=6, freq_dim=128, text_dim=128, text_len=48, channels=48
)
MINI_VAE = VAEConfig(dim=16, dec_dim=16, mean=(0.0,) * 48, std=(1.0,) * 48)
