"""Nodes that output a film as LATENT or IMAGE; they check first that it fits in memory."""

from __future__ import annotations

import comfy.model_management
import comfy.sd
import torch
from comfy_api.latest import io
from torch import Tensor

from ..longlive_core.pipeline.decode import QUEUE_DEPTH
from ..longlive_core.units import format_bytes, plural
from . import tooltips
from .native_vae import decoder_patcher
from .run_stream import StreamRun
from .types import CATEGORY, FILM_TYPES, Stream
from .vae import decoder, slice_bytes


class StreamToLatent(io.ComfyNode):
    """STREAM to LATENT, the whole film in RAM."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveStreamToLatent",
            display_name="LongLive Stream to Latent",
            category=CATEGORY,
            description="Returns the whole film as LATENT, for ComfyUI's VAE Decode and Save Latent.",
            search_aliases=["longlive", "latents"],
            inputs=[io.MultiType.Input("stream", FILM_TYPES, tooltip=tooltips.STREAM)],
            outputs=[io.Latent.Output(tooltip="The latents of all frames.")],
        )

    @classmethod
    def execute(cls, stream: Stream) -> io.NodeOutput:
        whole = stream.spec.shape.with_frames(stream.film.plan.latent_frames).as_tuple()
        check_memory(4 * torch.Size(whole).numel(), plural(whole[2], "latent frame"))
        with StreamRun(stream) as run:
            latents = torch.cat([block.latents for block in run], dim=2)
        return io.NodeOutput({"samples": stream.latent_format.process_out(latents)})


class StreamToImages(io.ComfyNode):
    """STREAM to IMAGE, a range of frames in RAM."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveStreamToImages",
            display_name="LongLive Stream to Images",
            category=CATEGORY,
            description="Returns frames of the film as IMAGE. A minute at 1280x704 takes 16 GB of RAM: select a part, "
            "or use LongLive Async Decode, which writes a file.",
            search_aliases=["longlive", "frames", "vae decode", "last frame"],
            inputs=[
                io.MultiType.Input("stream", FILM_TYPES, tooltip=tooltips.STREAM),
                io.Vae.Input("vae", tooltip=tooltips.VAE),
                io.Int.Input(
                    "first_frame",
                    default=0,
                    min=-1_000_000,
                    max=1_000_000,
                    tooltip="First video frame to return. Negative numbers count from the end: -1 is the last frame.",
                ),
                io.Int.Input(
                    "frame_count",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Number of video frames; 0 returns all frames from first_frame on.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The frames.")],
        )

    @classmethod
    def execute(cls, stream: Stream, vae: comfy.sd.VAE, first_frame: int, frame_count: int) -> io.NodeOutput:
        requested = frame_range(first_frame, frame_count, stream.film.plan.video_frames)
        pixels = stream.spec.shape.pixels
        check_memory(4 * 3 * len(requested) * pixels.height * pixels.width, plural(len(requested), "frame"))
        images = torch.empty(len(requested), pixels.height, pixels.width, 3)
        chunk_decoder = decoder(vae, stream.latent_format)
        with StreamRun(stream, beside=[decoder_patcher(vae)], memory=slice_bytes(vae, stream.spec.shape)) as run:
            start = 0
            for decoded in run.shown(run.stage("decoding", run.decoded(chunk_decoder), QUEUE_DEPTH)):
                frames = decoded.frames.wait()
                _copy_frames(images, frames, start - requested.start)
                start += len(frames)
        return io.NodeOutput(images)


def frame_range(first: int, count: int, total: int) -> range:
    """Returns the requested video frames of a film of `total` frames. Raises ValueError if there are none."""
    start = first if first >= 0 else total + first
    stop = min(total, start + count) if count else total
    if not 0 <= start < stop:
        raise ValueError(
            f"first_frame {first}: the film has {plural(total, 'frame')}; choose 0 to {total - 1}, or -1 to -{total} "
            "from the end"
        )
    return range(start, stop)


def check_memory(needed: int, what: str) -> None:
    """Raises ValueError if a tensor of `needed` bytes does not fit in the machine's free memory."""
    free = comfy.model_management.get_free_memory(torch.device("cpu"))
    if needed > free:
        raise ValueError(
            f"{what}: {format_bytes(needed)} of RAM needed, but only {format_bytes(free)} is free: use LongLive Async "
            "Decode, which writes a file, or request fewer frames"
        )


def _copy_frames(images: Tensor, piece: Tensor, at: int) -> None:
    """Copies uint8 frames `[T, H, W, 3]` into float images `[N, H, W, 3]` from index `at`; skips frames outside."""
    begin, end = max(at, 0), min(at + len(piece), len(images))
    if begin < end:
        images[begin:end] = piece[begin - at : end - at].float() / 255
