"""The Wan2.2 VAE, which decodes and encodes a film chunk by chunk, equal to the bit to the whole film at once."""

from .config import VAEConfig
from .layers import State
from .stream import ChunkDecoder, DecodeStream
from .wan import WanVAE

__all__ = ["ChunkDecoder", "DecodeStream", "State", "VAEConfig", "WanVAE"]
