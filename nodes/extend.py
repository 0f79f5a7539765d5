"""The node that encodes a video as the beginning of a film."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
from comfy_api.latest import io, ui
from torch import Tensor

from ..longlive_core.film.film import Film
from ..longlive_core.film.sampler_settings import SamplerSettings
from ..longlive_core.memory import DEFAULT_MEMORY, MemoryConfig
from ..longlive_core.types import BLOCK_FRAMES, LatentShape, PixelShape
from ..longlive_core.vae.encode_clip import encode_clip, plan_clip, whole_blocks
from . import tooltips
from .checks import check_sides, error_or_true
from .device_lock import DeviceLock
from .film_spec import FilmSpec
from .inputs import fps_input, side_input, text_input
from .model import as_causal
from .sampler import check_size, default_seam
from .shot_script import encode_shots
from .types import CATEGORY, MemoryType, StateType, Stream, StreamType
from .vae import HostedVAE, check_pair


class ExtendVideo(io.ComfyNode):
    """IMAGE frames to a film of known latents, which other nodes continue."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveExtendVideo",
            display_name="LongLive Extend Video",
            category=CATEGORY,
            description="Encodes the frames of any video as the beginning of a film, which LongLive Shot or LongLive "
            "Streaming Sampler continues. The video becomes the memory of the film.",
            search_aliases=["longlive", "continue video", "extend video", "video to video", "load video", "append"],
            inputs=[
                io.Model.Input("model", tooltip="The model that continues the film."),
                io.Clip.Input("clip", tooltip="The text encoder of that model."),
                io.Vae.Input("vae", tooltip=tooltips.VAE),
                io.Image.Input(
                    "frames",
                    tooltip="At least 29 frames, for example from ComfyUI's Load Video and Get Video Components.",
                ),
                text_input("prompt", "", "What the video shows. Later shots can refer to it."),
                side_input(
                    "width",
                    1280,
                    "Width of the film in pixels; the video is scaled and cropped to it. LongLive Mini: at most 128.",
                ),
                side_input(
                    "height",
                    704,
                    "Height of the film in pixels; the video is scaled and cropped to it. LongLive Mini: at most 128.",
                ),
                fps_input("fps", "Frames per second of the video and of the film. The models were trained at 24."),
                MemoryType.Input(
                    "memory", optional=True, tooltip="From LongLive Sink Memory. Not connected: the defaults."
                ),
            ],
            outputs=[
                StreamType.Output(display_name="STREAM", tooltip="The encoded video."),
                StateType.Output(
                    display_name="STATE",
                    tooltip="For LongLive Shot or LongLive Streaming Sampler, which continue the film.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls, prompt: str | None = None, width: int | None = None, height: int | None = None
    ) -> bool | str:
        """What comes over a wire is None here: it is checked when it runs."""

        def check() -> None:
            if prompt is not None:
                plan_clip(1, prompt)
            check_sides(width, height)

        return error_or_true(check)

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        clip: comfy.sd.CLIP | None,
        vae: comfy.sd.VAE,
        frames: Tensor,
        prompt: str,
        width: int,
        height: int,
        fps: float,
        memory: MemoryConfig | None = None,
    ) -> io.NodeOutput:
        model = as_causal(model)
        shape = PixelShape(1, 1, height, width).latent.with_frames(BLOCK_FRAMES)
        check_size(model, shape, None)
        check_pair(vae, model.model.latent_format)
        blocks, dropped = whole_blocks(len(frames), BLOCK_FRAMES)
        plan = plan_clip(blocks, prompt, fps, BLOCK_FRAMES)
        film = Film.from_latents(plan, _encode(frames, vae, model, shape))
        embeddings = encode_shots(clip, film.plan).embeddings
        node, title = str(cls.hidden.unique_id), "LongLive Extend Video"
        size, memory = (shape.height, shape.width), memory or DEFAULT_MEMORY
        settings = SamplerSettings(size, memory, steps=1, seam=default_seam(model))
        spec = FilmSpec(model, embeddings, film.plan, shape, settings, DeviceLock(model.load_device))
        stream = Stream(film, spec, node, title)
        note = f"encoded {film.plan.video_frames} of {len(frames)} frames, {len(film.plan.blocks)} blocks"
        if dropped:
            note += f"; the first {dropped} frames are left out, because a film continues from whole blocks"
        return io.NodeOutput(stream, stream, ui=ui.PreviewText(note))


def _encode(frames: Tensor, vae: comfy.sd.VAE, model: comfy.model_patcher.ModelPatcher, shape: LatentShape) -> Tensor:
    """Encodes frames `[T, H, W, 3]` into the latents `[1, C, F, h, w]` of whole blocks, with the host's progress."""
    pixels = shape.pixels
    needed = vae.memory_used_encode((1, 3, 5, pixels.height, pixels.width), vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=int(needed))
    progress = comfy.utils.ProgressBar((len(frames) + 3) // 4)

    def on_latent_frame() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update(1)

    return encode_clip(frames, HostedVAE(vae, model.model.latent_format), shape, on_latent_frame)
