"""Shapes and blocks: what travels between the parts, with the arithmetic of video time on it.

Wan2.2 compresses time by 4 and space by 16: one latent frame is 4 video frames, but the first one is a single frame.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

TIME_FACTOR = 4
SPACE_FACTOR = 16
LATENT_CHANNELS = 48
# A block is 8 latent frames; films run at 24 frames a second, as the models were trained.
BLOCK_FRAMES = 8
FPS = 24


@dataclass(frozen=True, slots=True)
class PixelShape:
    """A video: `frames` video frames of `height` × `width` pixels, `batch` of them."""

    batch: int
    frames: int
    height: int
    width: int

    @property
    def latent(self) -> LatentShape:
        """The latent video that covers these frames (the last latent frame may reach beyond them).

        Raises ValueError where the size is not a multiple of 32: 16 of the VAE times the patch of 2.
        """
        unit = SPACE_FACTOR * 2
        if self.height <= 0 or self.width <= 0 or self.height % unit or self.width % unit:
            raise ValueError(
                f"size {self.width}x{self.height} is not a positive multiple of {unit} in both directions; "
                f"try {round_to(self.width, unit)}x{round_to(self.height, unit)}"
            )
        frames = latent_frames(self.frames)
        return LatentShape(self.batch, LATENT_CHANNELS, frames, self.height // SPACE_FACTOR, self.width // SPACE_FACTOR)


@dataclass(frozen=True, slots=True)
class LatentShape:
    """A latent video `[batch, channels, frames, height, width]`."""

    batch: int
    channels: int
    frames: int
    height: int
    width: int

    @property
    def pixels(self) -> PixelShape:
        """The video that decoding gives."""
        frames = video_frames(self.frames)
        return PixelShape(self.batch, frames, self.height * SPACE_FACTOR, self.width * SPACE_FACTOR)

    def as_tuple(self) -> tuple[int, int, int, int, int]:
        """`[B, C, F, H, W]` as torch wants it."""
        return self.batch, self.channels, self.frames, self.height, self.width

    def with_frames(self, frames: int) -> LatentShape:
        """The same shape with another length."""
        return LatentShape(self.batch, self.channels, frames, self.height, self.width)


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """What is to be made: one block of a film.

    `shot` counts shots from 0; `cut` is true for the block that starts a new shot with a scene transition (never the
    first block of a film); `seed` is the shot's own seed, or None; `start` and `frames` are latent frames.
    `prompt` is the text as the encoder gets it, a scene transition's prefix included.
    """

    index: int
    shot: int
    prompt: str
    cut: bool
    seed: int | None
    start: int
    frames: int

    @property
    def video_start(self) -> int:
        """First video frame of the block."""
        return video_frames(self.start)

    @property
    def video_frames(self) -> int:
        """Video frames of the block: 4 per latent frame, 3 fewer in a film's first block."""
        return video_frames(self.start + self.frames) - self.video_start


@dataclass(frozen=True, slots=True)
class Block:
    """A finished block: `latents` `[B, C, frames, H, W]`, float32, normalised by the VAE's mean and deviation."""

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
    """Video frames in the first `latent` latent frames of a film: 1 + 4 (latent - 1), and 0 for none."""
    return 1 + TIME_FACTOR * (latent - 1) if latent > 0 else 0


def latent_frames(video: int) -> int:
    """Latent frames that cover the first `video` video frames of a film."""
    return 1 + -(-(video - 1) // TIME_FACTOR) if video > 0 else 0


def round_to(value: int, unit: int) -> int:
    """The positive multiple of `unit` nearest to `value`."""
    return max(unit, round(value / unit) * unit)
