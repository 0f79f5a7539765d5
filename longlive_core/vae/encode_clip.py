"""A video from anywhere as a film to go on from: whole blocks of it, at the film's size, encoded piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..script import BlockPlan, Length, plan_shot
from ..types import TIME_FACTOR, LatentShape, video_frames


class ChunkEncoder(Protocol):
    """A VAE that encodes a clip piece by piece; `WanVAE` is one. Its state is handed in and out, None at the start."""

    def encode_chunk(self, video: Tensor, state: Any) -> tuple[Tensor, Any]:  # noqa: ANN401 (each VAE's own)
        """The next frames `[1, 3, T, H, W]` in [-1, 1], T 1 first and then 4 -> (latents `[1, C, 1, h, w]`, state)."""
        ...

    def normalise(self, latents: Tensor) -> Tensor:
        """VAE space -> the model's space."""
        ...


def whole_blocks(frames: int, block_frames: int = 8) -> tuple[int, int]:
    """How many blocks a clip is, and how many of its first frames are too much: a film goes on from its very end.

    Raises ValueError for a clip shorter than a block.
    """
    least = video_frames(block_frames)
    if frames < least:
        raise ValueError(
            f"the clip has {frames} frames; a film goes on from whole blocks, {least} frames at least: give a longer "
            "clip, or its last frame as the start image of a new film"
        )
    more, surplus = divmod(frames - least, block_frames * TIME_FACTOR)
    return 1 + more, surplus


def encode_clip(frames: Tensor, vae: ChunkEncoder, shape: LatentShape, on_latent_frame: Callable[[], None]) -> Tensor:
    """The clip's last whole blocks as latents `[1, C, F, h, w]`, normalised, float32 on the CPU.

    frames: `[T, H, W, 3]`, uint8 or float in [0, 1], of any size: see `resize_and_crop`. shape: of one block.
    on_piece: called before each latent frame; what it raises passes through. Raises ValueError as `whole_blocks` does.
    """
    _, surplus = whole_blocks(len(frames), shape.frames)
    return torch.cat(list(encode_chunks(_pieces(frames[surplus:]), vae, shape, on_latent_frame)), dim=2)


def encode_chunks(
    pieces: Iterable[Tensor], vae: ChunkEncoder, shape: LatentShape, on_latent_frame: Callable[[], None]
) -> Iterator[Tensor]:
    """A latent frame `[1, C, 1, h, w]` for each piece of a clip: its first frame, then four at a time.

    Frames and latents as in `encode_clip`, in the memory of one piece.
    """
    pixels, state = shape.pixels, None
    for piece in pieces:
        on_latent_frame()
        video = resize_and_crop(piece, pixels.width, pixels.height).mul(2).sub(1).movedim(0, 1)[None]
        with torch.no_grad():
            latent, state = vae.encode_chunk(video, state)
            normal = vae.normalise(latent.float()).to("cpu", torch.float32)
        yield normal


def resize_and_crop(frames: Tensor, width: int, height: int) -> Tensor:
    """Frames `[T, H, W, 3]`, uint8 or float in [0, 1], scaled to cover the size and cropped to its middle.

    Returns `[T, 3, height, width]` float32 in [0, 1].
    """
    x = frames[..., :3].movedim(-1, 1)
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    down, across = x.shape[2:]
    scale = max(height / down, width / across)
    size = max(height, round(down * scale)), max(width, round(across * scale))
    if size != (down, across):
        x = interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return x[:, :, top : top + height, left : left + width]


def plan_clip(blocks: int, prompt: str, fps: float = 24, block_frames: int = 8) -> BlockPlan:
    """The plan of a clip of that many blocks as one shot, which `prompt` describes; for `Film.known`.

    Raises ValueError as `plan_shot` does.
    """
    return plan_shot(prompt, Length(Decimal(blocks), "blocks"), fps=fps, block_frames=block_frames)


def _pieces(frames: Tensor) -> Iterator[Tensor]:
    """The frames of each latent frame: one, then four at a time."""
    yield frames[:1]
    yield from frames[1:].split(TIME_FACTOR)
