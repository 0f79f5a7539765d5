"""Tooltips of inputs and outputs that several nodes have."""

from __future__ import annotations

MODEL = "From LongLive Model Loader or LongLive Mini; LoRA loaders may be in between."
CLIP = "umt5-xxl (Load CLIP, type wan) for LongLive 5B, or the CLIP of LongLive Mini."
VAE = "wan2.2_vae.safetensors for LongLive 5B, or the VAE of LongLive Mini."
STREAM = "From LongLive Streaming Sampler, or from the last LongLive Shot of a chain."
STATE = "The end of the film, from which another shot or sampler continues."
MEMORY = "From LongLive Sink Memory. Not connected: the memory settings of the film that continues, or the defaults."
START_IMAGE = "First picture of the film. Needs vae; not used with state."
