"""Shapes of videos and latents, blocks of a film, and the conversion between video frames and latent frames.

The VAE of Wan2.2 compresses time by 4 and space by 16. A latent frame holds 4 video frames, except the first latent
frame of a film, which holds one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TIME_FACTOR = 4
SPACE_FACTOR = 16
LATENT_CHANNELS = 48
BLOCK_FRAMES = 8
"""Latent frames in a block, as LongLive 2.0 was trained."""
FPS = 24
"""Video frames per second, as LongLive 2.0 was trained."""


@dataclass(frozen=True, slots=True)
class PixelShape:
    """Shape of a batch of videos: `frames` video frames of `height` × `width` pixels."""

    batch: int
    frames: int
    height: int
    width: int

    @property
    def latent(self) -> LatentShape:
        """Shape of the latents that cover these frames; the last latent frame may extend beyond the last video frame.

        Raises ValueError if height or width is not a multiple of 32, the VAE's 16 times the transformer's patch of 2.
        """
        unit = SPACE_FACTOR * 2
        if self.height <= 0 or self.width <= 0 or self.height % unit or self.width % unit:
            raise ValueError(
                f"height {self.height} and width {self.width} must be positive multiples of {unit}; "
                f"try height {round_to(self.height, unit)} and width {round_to(self.width, unit)}"
            )
        frames = latent_frames(self.frames)
        return LatentShape(self.batch, LATENT_CHANNELS, frames, self.height // SPACE_FACTOR, self.width // SPACE_FACTOR)


@dataclass(frozen=True, slots=True)
class LatentShape:
    """Shape of a batch of latent videos, `[batch, channels, frames, height, width]`."""

    batch: int
    channels: int
    frames: int
    height: int
    width: int

    @property
    def pixels(self) -> PixelShape:
        """Shape of the decoded video."""
        frames = video_frames(self.frames)
        return PixelShape(self.batch, frames, self.height * SPACE_FACTOR, self.width * SPACE_FACTOR)

    def as_tuple(self) -> tuple[int, int, int, int, int]:
        """`[B, C, F, H, W]`, as PyTorch functions take it."""
        return self.batch, self.channels, self.frames, self.height, self.width

    def with_frames(self, frames: int) -> LatentShape:
        """The same shape with another number of latent frames."""
        return LatentShape(self.batch, self.channels, frames, self.height, self.width)

    def with_batch(self, batch: int) -> LatentShape:
        """The same shape with another number of films."""
        return LatentShape(batch, self.channels, self.frames, self.height, self.width)


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """Description of one block of a film.

    index: position in the film. shot: index of the shot, from 0. prompt: the text that is encoded, including the
    prefix of a scene transition. cut: whether the block starts a new shot with a scene transition; always false for the
    first block of a film. seed: the shot's own seed, or None. start, frames: latent frames. recalled: indices of
    earlier blocks that are in memory as long as the shot lasts, the same for every block of the shot; -1, -2, … are the
    blocks of the film's cast files.
    """

    index: int
    shot: int
    prompt: str
    cut: bool
    seed: int | None
    start: int
    frames: int
    recalled: tuple[int, ...] = ()

    @property
    def video_start(self) -> int:
        """Index of the block's first video frame."""
        return video_frames(self.start)

    @property
    def video_frames(self) -> int:
        """Number of video frames in the block: 4 per latent frame, and 3 fewer in the first block of a film."""
        return video_frames(self.start + self.frames) - self.video_start


@dataclass(frozen=True, slots=True)
class Block:
    """A finished block: `latents` `[B, C, F, H, W]`, float32, normalised by the VAE's mean and standard deviation."""

    spec: BlockSpec
    latents: Tensor

    @property
    def index(self) -> int:
        return self.spec.index

    @property
    def shot(self) -> int:
        return self.spec.shot

    @property
    def start(self) -> int:
        return self.spec.start

    @property
    def frames(self) -> int:
        return self.spec.frames


def video_frames(latent: int) -> int:
    """Number of video frames in the first `latent` latent frames of a film: 1 + 4 (latent - 1), or 0 for none."""
    return 1 + TIME_FACTOR * (latent - 1) if latent > 0 else 0


def latent_frames(video: int) -> int:
    """Number of latent frames that cover the first `video` video frames of a film."""
    return 1 + -(-(video - 1) // TIME_FACTOR) if video > 0 else 0


def round_to(value: int, unit: int) -> int:
    """The positive multiple of `unit` that is nearest to `value`."""
    return max(unit, round(value / unit) * unit)
