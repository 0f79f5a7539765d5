"""Encoding of a video that a film continues: its last whole blocks, at the film's size, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..script import BlockPlan, Length, plan_shot
from ..types import BLOCK_FRAMES, FPS, TIME_FACTOR, LatentShape, video_frames


class ChunkEncoder(Protocol):
    """A VAE that encodes a clip chunk by chunk. Its state is passed in and out, None at the start. See `WanVAE`."""

    def encode_chunk(self, video: Tensor, state: Any) -> tuple[Tensor, Any]:  # noqa: ANN401 (its type depends on the VAE)
        """Encodes the next frames `[1, 3, T, H, W]` in [−1, 1], T = 1 first and then 4 → (`[1, C, 1, h, w]`, state)."""
        ...

    def normalise(self, latents: Tensor) -> Tensor:
        """Latents of VAE space → those of the transformer."""
        ...


def whole_blocks(frames: int, block_frames: int = BLOCK_FRAMES) -> tuple[int, int]:
    """The number of whole blocks at the end of a clip, and the number of video frames before them.

    Raises ValueError for a clip shorter than a block.
    """
    first = video_frames(block_frames)
    if frames < first:
        raise ValueError(
            f"the clip has {frames} frames, but a film continues from whole blocks, {first} frames at least; use a "
            "longer clip, or its last frame as the start image of a new film"
        )
    more, surplus = divmod(frames - first, block_frames * TIME_FACTOR)
    return 1 + more, surplus


def encode_clip(frames: Tensor, vae: ChunkEncoder, shape: LatentShape, on_latent_frame: Callable[[], None]) -> Tensor:
    """Encodes the last whole blocks of a clip → normalised latents `[1, C, F, h, w]`, float32 on the CPU.

    frames: `[T, H, W, 3]`, uint8 or float in [0, 1], of any size; see `resize_and_crop`. shape: of one block of the
    film. on_latent_frame: called before each latent frame; its exceptions pass through. Raises ValueError as
    `whole_blocks` does.
    """
    _, surplus = whole_blocks(len(frames), shape.frames)
    frames = frames[surplus:]
    chunks = (frames[:1], *frames[1:].split(TIME_FACTOR))
    return torch.cat(list(encode_chunks(chunks, vae, shape, on_latent_frame)), dim=2)


def encode_chunks(
    chunks: Iterable[Tensor], vae: ChunkEncoder, shape: LatentShape, on_latent_frame: Callable[[], None]
) -> Iterator[Tensor]:
    """Encodes each chunk of a clip, the first frame and then four frames each, to a latent frame `[1, C, 1, h, w]`.

    Arguments and latents as in `encode_clip`. Only one chunk is in memory at a time.
    """
    pixels, state = shape.pixels, None
    for chunk in chunks:
        on_latent_frame()
        video = resize_and_crop(chunk, pixels.width, pixels.height).mul(2).sub(1).movedim(0, 1)[None]
        with torch.no_grad():
            latent, state = vae.encode_chunk(video, state)
            normalised = vae.normalise(latent.float()).to("cpu", torch.float32)
        yield normalised


def resize_and_crop(frames: Tensor, width: int, height: int) -> Tensor:
    """Scales frames to cover the size and crops them to its centre.

    `[T, H, W, 3]` uint8 or float in [0, 1] → `[T, 3, height, width]` float32 in [0, 1].
    """
    x = frames[..., :3].movedim(-1, 1)
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    h, w = x.shape[2:]
    scale = max(height / h, width / w)
    size = max(height, round(h * scale)), max(width, round(w * scale))
    if size != (h, w):
        x = interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return x[:, :, top : top + height, left : left + width]


def plan_clip(blocks: int, prompt: str, fps: float = FPS, block_frames: int = BLOCK_FRAMES) -> BlockPlan:
    """The block plan of a clip of `blocks` blocks: one shot, which `prompt` describes. For `Film.known`.

    Raises ValueError as `plan_shot` does.
    """
    return plan_shot(prompt, Length(Decimal(blocks), "blocks"), fps=fps, block_frames=block_frames)
