"""The Wan2.2 VAE, causal in time: a film in pieces gives the same pixels as a film at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import VAEConfig
from .decoder import Decoder
from .encoder import Encoder
from .layers import CausalConv3d, ConvCache, State, patchify, unpatchify


class WanVAE(nn.Module):
    """Video [B, 3, F, H, W] in [-1, 1] <-> latents [B, C, f, H/16, W/16], F = 1 + 4 (f - 1).

    Latents here are in VAE space; `normalise` and `denormalise` are the model's edge. State-dict names are Wan's.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(2 * config.latent_channels, 2 * config.latent_channels, (1, 1, 1))
        self.conv2 = CausalConv3d(config.latent_channels, config.latent_channels, (1, 1, 1))
        self.decoder = Decoder(config)

    def encode_chunk(self, video: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The next frames [B, 3, T, H, W] -> (latents [B, C, t, h, w], state). T is 1 first, then a multiple of 4.

        Frames always pass four at a time, so the pieces in which a film comes cannot change a bit of it.
        """
        pieces: list[Tensor] = []
        for frames in video.split(4, dim=2):
            moments, state = self._encode(frames, state)
            pieces.append(moments.chunk(2, dim=1)[0])
        assert state is not None
        return torch.cat(pieces, dim=2), state

    def decode_chunk(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The next latents [B, C, t, h, w], any t >= 1 -> (video [B, 3, T, H, W] unclamped, state).

        T is 4 t, and 3 less in a film's first chunk. Latent frames always pass one by one: see `encode_chunk`.
        """
        pieces: list[Tensor] = []
        for frame in latents.split(1, dim=2):
            video, state = self._decode(frame, state)
            pieces.append(video)
        assert state is not None
        return torch.cat(pieces, dim=2), state

    def encode(self, video: Tensor) -> Tensor:
        """Whole clip [B, 3, F, H, W] -> latents [B, C, f, h, w].

        Raises ValueError when F is not 1 + 4 k, or H or W not a multiple of 16.
        """
        self._check_clip(video)
        first, state = self.encode_chunk(video[:, :, :1], None)
        return torch.cat([first, self.encode_chunk(video[:, :, 1:], state)[0]], dim=2) if video.shape[2] > 1 else first

    def decode(self, latents: Tensor) -> Tensor:
        """Whole clip [B, C, f, h, w] -> video [B, 3, F, H, W] unclamped. For films use `DecodeStream`."""
        return self.decode_chunk(latents, None)[0]

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior of a clip, all frames at once: for training. Raises as `encode`."""
        self._check_clip(video)
        moments, state = self._encode(video[:, :, :1], None)
        if video.shape[2] > 1:
            moments = torch.cat([moments, self._encode(video[:, :, 1:], state)[0]], dim=2)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def reconstruct(self, latents: Tensor) -> Tensor:
        """`decode` with all frames at once, for training: faster, larger, and equal within rounding only."""
        first, state = self._decode(latents[:, :, :1], None)
        return torch.cat([first, self._decode(latents[:, :, 1:], state)[0]], dim=2) if latents.shape[2] > 1 else first

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
                f"cannot encode {frames} frames of {width}x{height}: frames must be 1 + 4 k, "
                "width and height multiples of 16; trim or pad the clip"
            )

    def normalise(self, latents: Tensor) -> Tensor:
        """VAE space -> the model's space: (z - mean) / std."""
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def denormalise(self, latents: Tensor) -> Tensor:
        """The model's space -> VAE space: z * std + mean."""
        mean, std = self._statistics(latents)
        return latents * std + mean

    def to_vae_space(self, latents: Tensor) -> Tensor:
        """`denormalise` in float32, then to the weights' device and dtype."""
        weight = self.conv2.weight
        return self.denormalise(latents.to(weight.device, torch.float32)).to(weight.dtype)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, 1, 1, 1)
        mean, std = like.new_tensor(self.config.mean), like.new_tensor(self.config.std)
        return mean.view(shape), std.view(shape)
