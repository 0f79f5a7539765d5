"""The Wan2.2 VAE, causal in time: a film in pieces gives the same pixels as a film at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import VAEConfig
from .decoder import Decoder
from .encoder import Encoder
from .layers import CausalConv3d, State, Tape, patchify, unpatchify


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
        """The next frames [B, 3, T, H, W] -> (latents [B, C, t, h, w], state). T is 1 first, then a multiple of 4."""
        tape = Tape(state)
        mean, _ = self.conv1(self.encoder(patchify(video), tape), tape).chunk(2, dim=-1)
        return mean.permute(0, 4, 1, 2, 3), tape.state()

    def moments(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior of a whole clip [B, 3, 1 + 4 k, H, W], for training."""
        tape = Tape(None)
        pieces = [self.encoder(patchify(video[:, :, :1]), tape)]
        if video.shape[2] > 1:
            later = Tape(tape.state())
            pieces.append(self.encoder(patchify(video[:, :, 1:]), later))
        moments = self.conv1(torch.cat(pieces, dim=1), tape).permute(0, 4, 1, 2, 3)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)

    def decode_chunk(self, latents: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The next latents [B, C, t, h, w] -> (video [B, 3, T, H, W] unclamped, state). t is 1 first, then any."""
        if state is None and latents.shape[2] != 1:
            raise ValueError(
                f"the first chunk to decode has {latents.shape[2]} latent frames; it must have exactly 1: "
                "feed the first latent frame alone, or use decode()"
            )
        tape = Tape(state)
        x = self.conv2(latents.permute(0, 2, 3, 4, 1), tape)
        return unpatchify(self.decoder(x, tape)), tape.state()

    def encode(self, video: Tensor, chunk: int = 4) -> Tensor:
        """Whole clip [B, 3, F, H, W] -> latents [B, C, f, h, w], `chunk` frames (a multiple of 4) at a time.

        Raises ValueError when F is not 1 + 4 k, or H or W not a multiple of 16.
        """
        frames, H, W = video.shape[2:]
        if frames % 4 != 1 or H % 16 or W % 16 or chunk % 4:
            raise ValueError(
                f"cannot encode {frames} frames of {W}x{H} by {chunk}: frames must be 1 + 4 k, "
                "width and height multiples of 16, the chunk a multiple of 4"
            )
        z, state = self.encode_chunk(video[:, :, :1], None)
        pieces = [z]
        for piece in video[:, :, 1:].split(chunk, dim=2) if frames > 1 else ():
            z, state = self.encode_chunk(piece, state)
            pieces.append(z)
        return torch.cat(pieces, dim=2)

    def decode(self, latents: Tensor, chunk: int = 1) -> Tensor:
        """Whole clip [B, C, f, h, w] -> video [B, 3, F, H, W] unclamped. For films use `DecodeStream`."""
        video, state = self.decode_chunk(latents[:, :, :1], None)
        pieces = [video]
        for piece in latents[:, :, 1:].split(chunk, dim=2) if latents.shape[2] > 1 else ():
            video, state = self.decode_chunk(piece, state)
            pieces.append(video)
        return torch.cat(pieces, dim=2)

    def normalise(self, latents: Tensor) -> Tensor:
        """VAE space -> the model's space: (z - mean) / std."""
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def denormalise(self, latents: Tensor) -> Tensor:
        """The model's space -> VAE space: z * std + mean."""
        mean, std = self._statistics(latents)
        return latents * std + mean

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, 1, 1, 1)
        mean, std = like.new_tensor(self.config.mean), like.new_tensor(self.config.std)
        return mean.view(shape), std.view(shape)
