"""The node that samples the film while a downstream node iterates it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import get_args

import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..longlive_core.film.live_script import LiveScript
from ..longlive_core.film.sampler_settings import SamplerSettings
from ..longlive_core.memory import DEFAULT_MEMORY, MemoryConfig
from ..longlive_core.mini import PIXELS as MINI_PIXELS
from ..longlive_core.sampling import Seam
from ..longlive_core.script.from_plan import script_of
from ..longlive_core.take.block_file import latents_digest
from ..longlive_core.take.cast import NO_CAST, Cast
from ..longlive_core.take.settings import Settings
from ..longlive_core.types import LatentShape, PixelShape
from . import tooltips
from .cast_files import check_cast, read_script
from .checks import check_sides, passed
from .device_lock import DeviceLock
from .film_spec import FilmSpec, Storyboard, make_film
from .inputs import SeamChoice, guidance_input, seam_input, seed_input, side_input, steps_input
from .model import as_causal
from .skipped import muted_note
from .sources import sources_of
from .types import CATEGORY, FILM_TYPES, ConditioningType, MemoryType, ShotConditioning, StateType, Stream, StreamType
from .vae import MiniLatents, check_pair


class StreamingSampler(io.ComfyNode):
    """Conditioning and settings to a lazy STREAM; another node's execution samples it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveStreamingSampler",
            display_name="LongLive Streaming Sampler",
            category=CATEGORY,
            description="Samples the film block by block, while LongLive Async Decode or another node reads the "
            "STREAM. Queue a stopped film again and it continues with the next block.",
            search_aliases=["longlive", "ksampler", "long video", "causal", "autoregressive", "streaming"],
            inputs=[
                io.Model.Input("model", tooltip=tooltips.MODEL),
                ConditioningType.Input("conditioning", tooltip="From LongLive Encode Shots."),
                side_input("width", 1280, "Width in pixels, a multiple of 32. LongLive Mini: at most 128."),
                side_input("height", 704, "Height in pixels, a multiple of 32. LongLive Mini: at most 128."),
                seed_input(
                    "seed",
                    0,
                    "The same seed makes the same film. A longer film begins with the same blocks as a shorter one.",
                ),
                steps_input("steps"),
                guidance_input(
                    "guidance",
                    "1 for distilled models. Any other value also runs the negative prompt, which doubles time and "
                    "memory.",
                ),
                MemoryType.Input("memory", optional=True, tooltip=tooltips.MEMORY),
                io.Image.Input("start_image", optional=True, tooltip=tooltips.START_IMAGE),
                io.Vae.Input("vae", optional=True, tooltip="Encodes start_image."),
                io.MultiType.Input(
                    "state",
                    FILM_TYPES,
                    optional=True,
                    tooltip="STATE of another sampler or shot: its film continues, after a cut, with these shots.",
                ),
                io.Combo.Input(
                    "storyboard",
                    options=list(get_args(Storyboard)),
                    default="off",
                    optional=True,
                    tooltip="off: the film. only: a storyboard, the first block of every shot. first: the storyboard, "
                    "then the film, whose shots begin with the storyboard's blocks.",
                ),
                seam_input("seam"),
            ],
            outputs=[
                StreamType.Output(
                    display_name="STREAM", tooltip="The film. It is sampled while another node reads it."
                ),
                StateType.Output(display_name="STATE", tooltip=tooltips.STATE),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = None, height: int | None = None) -> bool:
        return passed(check_sides(width, height))

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        conditioning: ShotConditioning,
        width: int,
        height: int,
        seed: int,
        steps: int,
        guidance: float,
        memory: MemoryConfig | None = None,
        start_image: Tensor | None = None,
        vae: comfy.sd.VAE | None = None,
        state: Stream | None = None,
        storyboard: Storyboard = "off",
        seam: SeamChoice = "plain",
    ) -> io.NodeOutput:
        stream = make_stream(
            model,
            conditioning,
            size=(width, height),
            seed=seed,
            steps=steps,
            guidance=guidance,
            memory=memory,
            picture=(start_image, vae),
            state=state,
            node=str(cls.hidden.unique_id),
            title="LongLive Streaming Sampler",
            storyboard=storyboard,
            seam=seam,
        )
        workflow, node = (cls.hidden.extra_pnginfo or {}).get("workflow"), str(cls.hidden.unique_id)
        notes = [] if state is not None else muted_note(cls.hidden.extra_pnginfo, node)
        stream = replace(stream, notes=tuple(notes), sources=sources_of(workflow, node) if workflow else None)
        return io.NodeOutput(stream, stream, ui=ui.PreviewText("\n".join(notes)) if notes else None)


def make_stream(
    model: comfy.model_patcher.ModelPatcher,
    conditioning: ShotConditioning,
    *,
    size: tuple[int, int],
    seed: int,
    steps: int,
    guidance: float,
    memory: MemoryConfig | None,
    picture: tuple[Tensor | None, comfy.sd.VAE | None],
    state: Stream | None,
    node: str,
    title: str,
    cut: bool = True,
    storyboard: Storyboard = "off",
    seam: SeamChoice,
) -> Stream:
    """Makes the stream of these shots, or of the film of `state` followed by these shots.

    size: (width, height) in pixels. memory: None takes that of `state`, or the defaults. picture: the start image and
    its VAE, for a film that begins here. cut: whether these shots begin with a cut. node, title: id and name of the
    node. storyboard: see `make_film`. seam: see the node's input. Raises ValueError if the model cannot make the film.
    """
    model = as_causal(model)
    memory = memory or (DEFAULT_MEMORY if state is None else state.spec.settings.memory)
    plan = conditioning.plan if state is None else state.film.plan.then(conditioning.plan, cut)
    shape = PixelShape(1, 1, size[1], size[0]).latent.with_frames(plan.block_frames)
    check_size(model, shape, state)
    embeddings = conditioning.embeddings if state is None else {**state.spec.embeddings, **conditioning.embeddings}
    device_lock = DeviceLock(model.load_device) if state is None else state.spec.device_lock
    if seam == "auto":
        seam = default_seam(model) if state is None else state.spec.settings.seam
    cast = cast_of(conditioning, state)
    check_cast(cast, model, shape)
    settings = SamplerSettings(
        (shape.height, shape.width), memory, seed, steps, guidance, conditioning.negative, seam=seam, cast=cast.blocks
    )
    spec = FilmSpec(model, embeddings, plan, shape, settings, device_lock, conditioning.encode)
    spec.check()
    start = encode_start(*picture, model, shape) if state is None else None
    script = conditioning.script or script_of(conditioning.plan)
    read = partial(read_script, given=conditioning.given)
    live = LiveScript(script, plan, settings.check_plan, read) if storyboard == "off" else None
    recorded: Settings = {
        **settings.recorded,
        "start": None if start is None else f"image {latents_digest(start.to('cpu', torch.float32))}",
        "storyboard": storyboard,
    }
    film = make_film(spec, start, None if state is None else state.film, storyboard, live)
    written = conditioning.script if state is None else None
    return Stream(film, spec, node, title, state, recorded, written, live, cast=cast)


def cast_of(conditioning: ShotConditioning, state: Stream | None) -> Cast:
    """The cast files of the film of `state` followed by these shots.

    Raises ValueError if both have some and they differ, because shots recall them by number.
    """
    own, before = conditioning.cast, NO_CAST if state is None else state.cast
    if own.cards and before.cards and own.recorded != before.recorded:
        raise ValueError(
            f"these shots have the cast files {own.recorded}, and the film that they continue {before.recorded}: give "
            "both scripts the same cast files in the same order"
        )
    return own if own.cards else before


def default_seam(model: comfy.model_patcher.ModelPatcher) -> Seam:
    """The seam setting of a film that begins here: aligned for LongLive Mini only, as nobody has seen 5B aligned."""
    return "align" if isinstance(model.model.latent_format, MiniLatents) else "plain"


def check_size(model: comfy.model_patcher.ModelPatcher, shape: LatentShape, state: Stream | None) -> None:
    """Raises ValueError for a size that the model cannot make, or other than that of the film to go on from."""
    pixels = shape.pixels
    size = f"{pixels.width}x{pixels.height}"
    if isinstance(model.model.latent_format, MiniLatents) and max(pixels.width, pixels.height) > MINI_PIXELS:
        raise ValueError(
            f"size {size}: LongLive Mini makes films of at most {MINI_PIXELS}x{MINI_PIXELS}; set width and height to "
            f"{MINI_PIXELS}, or load LongLive 5B"
        )
    if state is not None and state.spec.shape != shape:
        before = state.spec.shape.pixels
        raise ValueError(
            f"size {size}: the film to continue is {before.width}x{before.height} in blocks of "
            f"{state.spec.shape.frames} latent frames; set the same size"
        )


def encode_start(
    image: Tensor | None, vae: comfy.sd.VAE | None, model: comfy.model_patcher.ModelPatcher, shape: LatentShape
) -> Tensor | None:
    """The start image as the film's first latent frame, `[1, C, 1, h, w]` normalised; only its first picture counts.

    Raises ValueError where image or VAE comes alone, or the VAE is another model's.
    """
    if image is None:
        return None
    if vae is None:
        raise ValueError("start_image needs a VAE: connect the vae input too")
    check_pair(vae, model.model.latent_format)
    pixels = shape.pixels
    fitted = comfy.utils.common_upscale(image[:1].movedim(-1, 1), pixels.width, pixels.height, "bilinear", "center")
    latent = vae.encode(fitted.movedim(1, -1)[..., :3])
    return model.model.latent_format.process_in(latent.float())
