"""The base of a LoRA: a MODEL of the host, of which a copy is trained, with its text encoder and VAE."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import comfy.model_patcher
import comfy.sd
import torch
from comfy.taesd.taehv import TAEHV
from torch import Tensor

from ..longlive_core.mini import MINI_DIT, PIXELS
from ..longlive_core.model import CausalWan
from ..longlive_core.training.clip_scan import Scan
from ..longlive_core.types import TIME_FACTOR
from ..longlive_core.weights import load_checkpoint
from .lora_beside import loras_beside
from .model import checkpoint_of
from .shot_script import encode_prompts
from .vae import HostedVAE, check_pair

MINI_SIDE, SIDE = PIXELS, 512


@dataclass(frozen=True)
class LoraBase:
    """What is trained on: a MODEL of ours without LoRAs, and its text encoder and VAE.

    Raises ValueError for a MODEL with LoRAs, and for a VAE or a CLIP that is absent or another model's.
    """

    model: comfy.model_patcher.ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE

    def __post_init__(self) -> None:
        if self.model.patches or any(True for _ in loras_beside(self.model)):
            raise ValueError(
                "this MODEL has a LoRA already, and a new one is trained on the model alone: connect the loader's "
                "MODEL, and add the other LoRA behind LongLive Train LoRA"
            )
        check_pair(self.vae, self.model.model.latent_format)
        if isinstance(self.vae.first_stage_model, TAEHV):
            raise ValueError(
                "this VAE is a tiny decoder for previews and cannot encode: connect wan2.2_vae.safetensors"
            )

    @property
    def name(self) -> str:
        """The name of the model, for the LoRA's card."""
        known = checkpoint_of(self.model)
        return "LongLive Mini" if known is None else known[0].name

    @property
    def is_mini(self) -> bool:
        """Whether it is LongLive Mini."""
        return self.model.model.diffusion_model.config == MINI_DIT

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the copy; fp16 becomes bf16, because small gradients vanish in fp16."""
        dtype = self.model.model.get_dtype_inference()
        return torch.bfloat16 if dtype == torch.float16 else dtype

    @property
    def chunks(self) -> HostedVAE:
        """The VAE by chunks, for the model's latents."""
        return HostedVAE(self.vae, self.model.model.latent_format)

    def side(self, resolution: int) -> int:
        """The side in pixels of a square of a clip's area; 0 is the model's. Raises ValueError if it is too large."""
        if self.is_mini and resolution > MINI_SIDE:
            raise ValueError(
                f"resolution {resolution}: LongLive Mini makes films of at most {MINI_SIDE}x{MINI_SIDE}; set 0"
            )
        return resolution or (MINI_SIDE if self.is_mini else SIDE)

    def encoder_bytes(self, scan: Scan) -> int:
        """The host's estimate of the VRAM for encoding four frames of the largest video."""
        height, width = max((video.size for video in scan.videos), key=prod)
        return int(self.vae.memory_used_encode((1, 3, TIME_FACTOR, height, width), self.vae.vae_dtype))

    def copy(self) -> CausalWan:
        """Reads the model once more, to the CPU. Call it outside inference mode, whose tensors have no gradients."""
        inner, known = self.model.model.diffusion_model, checkpoint_of(self.model)
        if known is not None:
            return load_checkpoint(known[0], dtype=self.dtype, text_len=inner.config.text_len)
        model = CausalWan(inner.config)
        model.load_state_dict({name: value.to(self.dtype) for name, value in inner.state_dict().items()})
        return model.requires_grad_(False).eval()

    def text(self, prompts: list[str]) -> dict[str, Tensor]:
        """Encodes prompts to `[L, text_dim]`. Raises ValueError for another model's text encoder."""
        encoded = {prompt: value.clone() for prompt, value in encode_prompts(self.clip, prompts).items()}
        width = self.model.model.diffusion_model.config.text_dim
        if other := next((v.shape[-1] for v in encoded.values() if v.shape[-1] != width), None):
            raise ValueError(
                f"this CLIP makes text of width {other}, but the model takes {width}: connect the text encoder of the "
                "model (umt5-xxl, type wan, for LongLive 5B; the CLIP of LongLive Mini for Mini)"
            )
        return encoded
