"""The decoder of the host's Wan 2.2 VAE run by our `WanVAE`, with the same weights."""

from __future__ import annotations

import logging

import comfy.ldm.wan.vae2_2 as wan22
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import torch

from ..longlive_core.vae import WanVAE

log = logging.getLogger(__name__)

# The attachment of a VAE with the model of our decoder.
NATIVE = "longlive_decoder"


def decoder_patcher(vae: comfy.sd.VAE) -> comfy.model_patcher.ModelPatcher:
    """The model that decodes the films of a VAE: on an NVIDIA GPU ours for Wan 2.2, otherwise the VAE's own."""
    on_nvidia = vae.device.type == "cuda" and torch.version.hip is None
    if not on_nvidia or not isinstance(vae.first_stage_model, wan22.WanVAE):
        return vae.patcher
    if vae.patcher.get_attachment(NATIVE) is None:
        try:
            native = native_patcher(vae)
        except (KeyError, RuntimeError) as error:
            log.warning("LongLive: the host decodes, because this VAE has other weights than Wan 2.2: %s", error)
            native = vae.patcher
        vae.patcher.set_attachments(NATIVE, native)
    return vae.patcher.get_attachment(NATIVE)


def native_patcher(vae: comfy.sd.VAE) -> comfy.model_patcher.ModelPatcher:
    """Makes a model of our decoder with the weights of a VAE. Raises KeyError or RuntimeError for other weights.

    The host loads it whole: its layers read their weights themselves.
    """
    offload = comfy.model_management.vae_offload_device()
    model = WanVAE.of_decoder({name: x.to(offload) for name, x in vae.first_stage_model.state_dict().items()})
    if vae.device.type == "cuda":
        model.to_channels_last()
    return comfy.model_patcher.ModelPatcher(model, load_device=vae.device, offload_device=offload)
