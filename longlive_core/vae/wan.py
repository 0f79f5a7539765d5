"""The Wan2.2 VAE. It is causal in time, so a film in chunks gives the same pixels as the whole film at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..transfer import to_device
from .config import VAEConfig
from .decoder import Decoder
from .encoder import Encoder
from .layers import CausalConv3d, ConvCache, State, patchify, unpatchify

Step = Callable[[Tensor, State | None], tuple[Tensor, State]]
"""Encodes or decodes the next frames `[B, C, F, H, W]`: (frames, state) → (result, state)."""


class WanVAE(nn.Module):
    """Video `[B, 3, F, H, W]` in [−1, 1] ↔ latents `[B, C, f, H/16, W/16]` with F = 1 + 4 (f − 1).

    Latents are in VAE space; `normalise` and `denormalise` convert from and to those of the transformer. Names in the
    state dict are those of Wan's checkpoints.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(2 * config.latent_channels, 2 * config.latent_channels, (1, 1, 1))
        self.conv2 = CausalConv3d(config.latent_channels, config.latent_channels, (1, 1, 1))
        self.decoder = Decoder(config)
        self._statistics_at: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @property
    def reach(self) -> int:
        """See `ChunkDecoder`."""
        return self.config.decoder_reach

    @classmethod
    def of_decoder(cls, weights: Mapping[str, Tensor]) -> WanVAE:
        """Makes a VAE that only decodes, of the weights of a whole one by Wan's names, which are not copied.

        Raises KeyError or RuntimeError if names or shapes are not those of Wan2.2.
        """
        with torch.device("meta"):
            vae = cls(VAEConfig.of_decoder(weights))
        del vae.encoder, vae.conv1
        vae.load_state_dict({name: weights[name] for name in vae.state_dict()}, assign=True)
        return vae.requires_grad_(False).eval()

    def to_channels_last(self) -> None:
        """Stores the weights of convolutions as cuDNN reads them, which otherwise arranges them anew in every call."""
        for module in self.modules():
            if isinstance(module, CausalConv3d):
                module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
            elif isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.to(memory_format=torch.channels_last)

    def encode_chunk(self, video: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Encodes the next frames `[B, 3, T, H, W]` → (latents `[B, C, t, h, w]`, state).

        T is 1 in the first chunk of a clip and a multiple of 4 in later ones. Frames always pass four at a time, so the
        latents do not depend on the size of the chunks. Tensors of the given state become those of the next one.
        """
        moments, state = _in_chunks(self._encode, to_device(video, self.conv1.weight.device), 4, state)
        return moments.chunk(2, dim=1)[0], state

    def decode_chunk(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Decodes the next latents `[B, C, t, h, w]`, t ≥ 1 → (video `[B, 3, T, H, W]` unclamped, state).

        T is 4 t, and 3 less in the first chunk of a film. Latent frames always pass one by one; see `encode_chunk`.
        """
        return _in_chunks(self._decode, latents, 1, state)

    def encode(self, video: Tensor) -> Tensor:
        """Encodes a whole clip `[B, 3, F, H, W]` → latents `[B, C, f, h, w]`.

        Raises ValueError if F is not 1 + 4 k, or H or W is not a multiple of 16.
        """
        self._check_clip(video)
        return _first_and_rest(self.encode_chunk, video)

    def decode(self, latents: Tensor) -> Tensor:
        """Decodes a whole clip `[B, C, f, h, w]` → video `[B, 3, F, H, W]` unclamped. Films use `DecodeStream`."""
        return self.decode_chunk(latents, None)[0]

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, `[B, C, f, h, w]` each, of a clip `[B, 3, F, H, W]`, for training.

        All frames pass at once. Raises ValueError as `encode` does.
        """
        self._check_clip(video)
        mean, log_variance = _first_and_rest(self._encode, video).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def reconstruct(self, latents: Tensor) -> Tensor:
        """`decode` with all frames at once, for training: faster, with more memory, and equal within rounding only."""
        return _first_and_rest(self._decode, latents)

    def _encode(self, video: Tensor, state: State | None) -> tuple[Tensor, State]:
        cache = ConvCache(state)
        moments = self.conv1(self.encoder(patchify(video), cache), cache)
        return moments.permute(0, 4, 1, 2, 3), cache.state()

    def _decode(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        cache = ConvCache(state)
        x = self.conv2(latents.permute(0, 2, 3, 4, 1), cache)
        return unpatchify(self.decoder(x, cache)), cache.state()

    def _check_clip(self, video: Tensor) -> None:
        frames, height, width = video.shape[2:]
        if frames % 4 != 1 or height % 16 or width % 16:
            raise ValueError(
                f"cannot encode {frames} frames of {width}x{height}: the number of frames must be 1 + 4 k, width and "
                "height multiples of 16; trim or pad the clip"
            )

    def normalise(self, latents: Tensor) -> Tensor:
        """Latents of VAE space → those of the transformer, (z − mean) / std; `[B, C, F, h, w]`."""
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def denormalise(self, latents: Tensor) -> Tensor:
        """Latents of the transformer → those of VAE space, z · std + mean; `[B, C, F, h, w]`."""
        mean, std = self._statistics(latents)
        return latents * std + mean

    def to_vae_space(self, latents: Tensor) -> Tensor:
        """`denormalise` in float32, then a cast to the device and dtype of the weights; `[B, C, F, h, w]`."""
        weight = self.conv2.weight
        return self.denormalise(to_device(latents, weight.device).float()).to(weight.dtype)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std, `[1, C, 1, 1, 1]` each, with the dtype and device of `like`."""
        place = like.device, like.dtype
        if place not in self._statistics_at:
            # Kept, because a copy of Python numbers to a GPU blocks the host. Usable in training, see inference mode.
            with torch.inference_mode(False):
                mean, std = like.new_tensor(self.config.mean), like.new_tensor(self.config.std)
            shape = (1, -1, 1, 1, 1)
            self._statistics_at[place] = mean.view(shape), std.view(shape)
        return self._statistics_at[place]


def _in_chunks(step: Step, x: Tensor, frames: int, state: State | None) -> tuple[Tensor, State]:
    """Passes x `[B, C, F, H, W]` through `step`, `frames` frames at a time, and concatenates the results."""
    results: list[Tensor] = []
    for chunk in x.split(frames, dim=2):
        result, state = step(chunk, state)
        results.append(result)
    assert state is not None
    return torch.cat(results, dim=2), state


def _first_and_rest(step: Step, x: Tensor) -> Tensor:
    """Passes a whole clip x `[B, C, F, H, W]` through `step`: the first frame by itself, then all others at once."""
    first, state = step(x[:, :, :1], None)
    return torch.cat([first, step(x[:, :, 1:], state)[0]], dim=2) if x.shape[2] > 1 else first
