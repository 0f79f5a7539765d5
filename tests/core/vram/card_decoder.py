"""Our decoder on the meta device with the allocations that it makes on a card."""

from __future__ import annotations

import pytest
import torch
from longlive.longlive_core.transfer import HostCopy
from longlive.longlive_core.vae import VAEConfig, WanVAE, layers, stream
from torch import Tensor
from torch.nn.functional import conv3d

CELLS = 4 * 6


def decoder(width: int, monkeypatch: pytest.MonkeyPatch) -> WanVAE:
    """A decoder for `META`, where a kernel writes its result alone and a convolution does not stack frames.

    What is copied to the host stays where it is, because nothing can be copied from the meta device.
    """
    monkeypatch.setattr(layers, "rms_silu_pad", padded)
    monkeypatch.setattr(layers.CausalConv3d, "convolve", convolve)
    monkeypatch.setattr(stream, "to_host", lambda frames: HostCopy(frames, None))
    with torch.device("meta"):
        vae = WanVAE(VAEConfig(dec_dim=width)).to(torch.bfloat16).requires_grad_(False)
    monkeypatch.setattr(vae, "to_vae_space", lambda latents: latents)
    return vae


def latents() -> Tensor:
    """Those of a latent frame."""
    return torch.empty(1, 48, 1, 4, 6, dtype=torch.bfloat16, device="meta")


def padded(x: Tensor, *_: object) -> Tensor:
    """What the kernel `rms_silu_pad` allocates."""
    return x.new_empty(x.shape[0], x.shape[1] + 2, *x.shape[2:])


def convolve(self: layers.CausalConv3d, x: Tensor, stride: int = 1, bias: Tensor | None = None) -> Tensor:
    """`CausalConv3d.convolve` on a card."""
    _, height, width = self.kernel
    pad, bias = (0, height // 2, width // 2), self.bias if bias is None else bias
    return conv3d(x.permute(0, 4, 1, 2, 3), self.weight, bias, (stride, 1, 1), pad).permute(0, 2, 3, 4, 1)
