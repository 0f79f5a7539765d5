"""VAEs of the host as chunk decoders and encoders, with their state passed in and out."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.ldm.wan.vae2_2 as wan22
import comfy.sd
import torch
from comfy.taesd.taehv import TAEHV
from torch import Tensor

from ..longlive_core.mini.preview import RGB_BIAS, RGB_FACTORS
from ..longlive_core.transfer import to_device
from ..longlive_core.types import LATENT_CHANNELS, LatentShape
from ..longlive_core.vae import WanVAE
from ..longlive_core.vae.config import VAEConfig
from .native_vae import decoder_patcher
from .tiny_decoder import TINY_REACH, decode_tiny


class HostedVAE:
    """A `ChunkDecoder` over a loaded VAE of the host; `latent_format` is that of the MODEL."""

    def __init__(self, vae: comfy.sd.VAE, latent_format: comfy.latent_formats.LatentFormat) -> None:
        self._format = latent_format
        self._model = vae.first_stage_model
        self._decoder = decoder_patcher(vae).model
        self._device: torch.device = vae.device
        self._dtype: torch.dtype = vae.vae_dtype

    def to_vae_space(self, latents: Tensor) -> Tensor:
        # Before the copy, because the host's formats copy their statistics to the device of the latents in every call.
        return to_device(self._format.process_out(latents.float()).to(self._dtype), self._device)

    def decode_chunk(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:  # noqa: ANN401 (each VAE's own)
        if isinstance(self._decoder, WanVAE):
            return self._decoder.decode_chunk(latents, state)
        if isinstance(self._model, TAEHV):
            return decode_tiny(self._model, latents, state)
        return self._wan(latents, state)

    def encode_chunk(self, video: Tensor, state: Any) -> tuple[Tensor, Any]:  # noqa: ANN401 (each VAE's own)
        """Encodes like the host's `WanVAE.encode`, but returns the feature cache between pieces: see `ChunkEncoder`.

        Raises ValueError for a tiny decoder.
        """
        video = video.to(self._device, self._dtype)
        if isinstance(self._model, WanVAE):
            return self._model.encode_chunk(video, state)
        if isinstance(self._model, TAEHV):
            raise ValueError(
                "this VAE is a tiny decoder for previews and cannot encode: connect wan2.2_vae.safetensors"
            )
        cache = [None] * wan22.count_conv3d(self._model.encoder) if state is None else state
        moments = self._model.encoder(wan22.patchify(video, patch_size=2), feat_cache=cache, feat_idx=[0])
        return self._model.conv1(moments).chunk(2, dim=1)[0], cache

    def normalise(self, latents: Tensor) -> Tensor:
        return self._format.process_in(latents)

    @property
    def reach(self) -> int:
        """How many earlier latent frames the pixels of a frame depend on."""
        if isinstance(self._model, WanVAE):
            return self._model.config.decoder_reach
        return TINY_REACH if isinstance(self._model, TAEHV) else VAEConfig().decoder_reach

    def _wan(self, latents: Tensor, state: list[Any] | None) -> tuple[Tensor, list[Any]]:
        """Decodes like the host's `WanVAE.decode`, but returns the feature cache between pieces."""
        first = state is None
        cache = [None] * wan22.count_conv3d(self._model.decoder) if state is None else state
        pieces: list[Tensor] = []
        for frame in self._model.conv2(latents).split(1, dim=2):
            pieces.append(self._model.decoder(frame, feat_cache=cache, feat_idx=[0], first_chunk=first))
            first = False
        return wan22.unpatchify(torch.cat(pieces, dim=2), patch_size=2), cache


def check_vae(vae: comfy.sd.VAE, what: str = "VAE") -> None:
    """Raises ValueError, naming the file to get, for a VAE that cannot decode a film of LongLive."""
    vae.throw_exception_if_invalid()
    if vae.latent_channels != LATENT_CHANNELS:
        raise ValueError(
            f"this {what} has {vae.latent_channels} latent channels; LongLive films have {LATENT_CHANNELS}: load "
            "wan2.2_vae.safetensors with Load VAE (not the VAE of Wan 2.1), or use the VAE of LongLive Mini for Mini"
        )
    if not isinstance(vae.first_stage_model, WanVAE | TAEHV | wan22.WanVAE):
        raise ValueError(
            f"this {what} is a {type(vae.first_stage_model).__name__}, which cannot decode a film in pieces: load "
            "wan2.2_vae.safetensors, or lighttaew2_2.safetensors for previews"
        )


def check_pair(vae: comfy.sd.VAE, latent_format: comfy.latent_formats.LatentFormat, what: str = "VAE") -> None:
    """Raises ValueError if only one of model and VAE is LongLive Mini's, because their latents differ."""
    check_vae(vae, what)
    ours, mini = isinstance(vae.first_stage_model, WanVAE), isinstance(latent_format, MiniLatents)
    if ours != mini:
        wanted = "the VAE of LongLive Mini" if mini else "wan2.2_vae.safetensors"
        raise ValueError(f"this {what} does not match the model that made the film: connect {wanted}")


def slice_bytes(vae: comfy.sd.VAE, shape: LatentShape) -> int:
    """Returns the host's estimate of the bytes for decoding one latent frame."""
    frame = shape.with_frames(1).as_tuple()
    return 0 if isinstance(vae.first_stage_model, WanVAE) else int(vae.memory_used_decode(frame, vae.vae_dtype))


def decoder(vae: comfy.sd.VAE, latent_format: comfy.latent_formats.LatentFormat) -> HostedVAE:
    """Returns the VAE as a `ChunkDecoder`. Raises ValueError as `check_pair` does."""
    check_pair(vae, latent_format)
    return HostedVAE(vae, latent_format)


class MiniLatents(comfy.latent_formats.LatentFormat):
    """Latents of LongLive Mini, with its VAE's statistics."""

    latent_channels = LATENT_CHANNELS
    latent_dimensions = 3
    spacial_downscale_ratio = 16
    temporal_downscale_ratio = 4
    latent_rgb_factors = RGB_FACTORS
    latent_rgb_factors_bias = RGB_BIAS

    def __init__(self, vae: WanVAE) -> None:
        self.process_in = vae.normalise
        self.process_out = vae.denormalise
