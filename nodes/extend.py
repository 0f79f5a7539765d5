"""The node that encodes a video as the beginning of a film."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy_api.latest import Input, io, ui
from torch import Tensor

from ..longlive_core.film.film import Film
from ..longlive_core.film.sampler_settings import SamplerSettings
from ..longlive_core.memory import DEFAULT_MEMORY, MemoryConfig
from ..longlive_core.types import BLOCK_FRAMES, LatentShape, PixelShape
from ..longlive_core.units import plural
from ..longlive_core.vae.encode_clip import encode_chunks, plan_clip, whole_blocks
from . import tooltips
from .checks import check_sides, passed
from .device_lock import DeviceLock
from .film_spec import FilmSpec
from .given_clip import GivenClip, audio_output, given_clip
from .inputs import fps_input, side_input, text_input
from .model import as_causal
from .sampler import check_size, default_seam
from .shot_script import encode_shots
from .types import CATEGORY, MemoryType, StateType, Stream, StreamType
from .vae import HostedVAE, check_pair


class ExtendVideo(io.ComfyNode):
    """A VIDEO or IMAGE frames to a film of known latents, which other nodes continue."""

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
                io.MultiType.Input(
                    "frames",
                    [io.Image, io.Video],
                    tooltip="The video, at least 29 frames. VIDEO, for example from ComfyUI's Load Video, is read by "
                    "time at the rate fps, at unchanged speed; IMAGE has no rate and is taken as frames at fps.",
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
                fps_input("fps", "Frames per second of the film. The models were trained at 24."),
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
                io.Audio.Output(
                    display_name="AUDIO",
                    tooltip="The sound of the video from the film's first frame on, for LongLive Async Decode. Empty "
                    "if it has none.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None, width: int | None = None, height: int | None = None) -> bool:
        """What comes over a wire is None here: it is checked when it runs. Raises ValueError."""
        if prompt is not None:
            plan_clip(1, prompt)
        return passed(check_sides(width, height))

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        clip: comfy.sd.CLIP | None,
        vae: comfy.sd.VAE,
        frames: Tensor | Input.Video,
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
        given = given_clip(frames, fps)
        blocks, dropped = whole_blocks(given.frames, BLOCK_FRAMES)
        plan = plan_clip(blocks, prompt, fps, BLOCK_FRAMES)
        film = Film.from_latents(plan, _encode(given, dropped, vae, model, shape))
        embeddings = encode_shots(clip, film.plan).embeddings
        node, title = str(cls.hidden.unique_id), "LongLive Extend Video"
        size, memory = (shape.height, shape.width), memory or DEFAULT_MEMORY
        settings = SamplerSettings(size, memory, steps=1, seam=default_seam(model))
        spec = FilmSpec(model, embeddings, film.plan, shape, settings, DeviceLock(model.load_device))
        stream = Stream(film, spec, node, title)
        note = f"encoded {film.plan.video_frames} of {plural(given.frames, 'frame')}, {plural(blocks, 'block')}"
        if dropped:
            lost = "first frame is" if dropped == 1 else f"first {dropped} frames are"
            note += f"; the {lost} left out, because a film continues from whole blocks"
        notes = [note, *given.notes]
        if (sound := given.sound(dropped)) is not None:
            notes.append("the video's sound is at the output AUDIO: connect it to LongLive Async Decode to keep it")
        return io.NodeOutput(stream, stream, audio_output(sound), ui=ui.PreviewText("\n".join(notes)))


def _encode(
    given: GivenClip, dropped: int, vae: comfy.sd.VAE, model: comfy.model_patcher.ModelPatcher, shape: LatentShape
) -> Tensor:
    """Encodes a clip without its first frames into the latents `[1, C, F, h, w]` of whole blocks, with the host's
    progress."""
    pixels = shape.pixels
    needed = vae.memory_used_encode((1, 3, 5, pixels.height, pixels.width), vae.vae_dtype)
    comfy.model_management.load_models_gpu([vae.patcher], memory_required=int(needed))
    progress = comfy.utils.ProgressBar((given.frames - dropped + 3) // 4)

    def on_latent_frame() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update(1)

    hosted = HostedVAE(vae, model.model.latent_format)
    return torch.cat(list(encode_chunks(given.pieces(dropped), hosted, shape, on_latent_frame)), dim=2)
