"""Wan2.2 VAE that streams exactly."""

from .config import WAN22_VAE, VAEConfig
from .layers import State
from .stream import ChunkDecoder, Copy, DecodeStream
from .wan import WanVAE

__all__ = ["WAN22_VAE", "ChunkDecoder", "Copy", "DecodeStream", "State", "VAEConfig", "WanVAE"]
