"""The node of one shot: in a chain, a change to one shot leaves the earlier shots unchanged."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import comfy.model_patcher
import comfy.sd
from comfy_api.latest import io, ui
from torch import Tensor

from ..longlive_core.memory import MemoryConfig
from ..longlive_core.script import BlockPlan, Length, plan_shot
from ..longlive_core.types import FPS
from ..longlive_core.units import plural
from . import tooltips
from .checks import passed
from .inputs import (
    SeamChoice,
    guidance_input,
    seam_input,
    seconds_input,
    seed_input,
    side_input,
    steps_input,
    text_input,
)
from .sampler import make_stream
from .shot_script import encode_shots, unknown_word_notes
from .skipped import muted_note
from .types import CATEGORY, FILM_TYPES, MemoryType, StateType, Stream, StreamType

# The film's seed, from which the noise is made together with the shot's seed: a script with `@seed` in each shot makes
# the same film if its sampler has this seed.
FILM_SEED = 0
EXAMPLE = "a big red ring sways on the left in front of a striped navy wall"


class ShotNode(io.ComfyNode):
    """One shot as a lazy STREAM, which continues another film if a STATE is connected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveShot",
            display_name="LongLive Shot",
            category=CATEGORY,
            description="Samples one shot of a film from its prompt. Connect STATE to state to chain shots. If you "
            "change the prompt or seed of one shot, only that shot and the later ones are rendered again.",
            search_aliases=["longlive", "retake", "next shot", "extend", "continue video", "multi shot", "chain"],
            inputs=[
                io.Model.Input("model", tooltip=tooltips.MODEL),
                io.Clip.Input("clip", tooltip=tooltips.CLIP),
                text_input(
                    "prompt",
                    EXAMPLE,
                    "What this shot shows. The phrase that announces a cut to the model is added automatically.",
                ),
                seconds_input("seconds", 1.0, "Length in seconds, rounded to whole blocks of 1.33 s (at 24 fps)."),
                seed_input("seed", 0, "Seed of this shot. Another seed makes another take."),
                side_input(
                    "width",
                    1280,
                    "Width of the film in pixels, set by its first shot. With state, the width of that film is used.",
                ),
                side_input(
                    "height",
                    704,
                    "Height of the film in pixels, set by its first shot. With state, the height of that film is used.",
                ),
                steps_input("steps"),
                guidance_input("guidance", "1 for distilled models. Any other value doubles time and memory."),
                MemoryType.Input("memory", optional=True, tooltip=tooltips.MEMORY),
                io.Image.Input("start_image", optional=True, tooltip=tooltips.START_IMAGE),
                io.Vae.Input("vae", optional=True, tooltip="Encodes start_image."),
                io.MultiType.Input(
                    "state",
                    FILM_TYPES,
                    optional=True,
                    tooltip="From the previous shot, LongLive Streaming Sampler, LongLive Extend Video or a take.",
                ),
                io.String.Input(
                    "style", optional=True, default="", tooltip="Added to the prompt, like 'style:' in a script."
                ),
                io.Boolean.Input(
                    "cut",
                    optional=True,
                    default=True,
                    tooltip="Only used with state. On: the shot begins with a cut. Off: the previous scene continues; "
                    "use the same prompt for best results.",
                ),
                seam_input("seam"),
            ],
            outputs=[
                StreamType.Output(display_name="STREAM", tooltip="The film up to the end of this shot."),
                StateType.Output(display_name="STATE", tooltip="For the next shot."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool:
        """Raises ValueError."""
        return passed(prompt is None or plan_shot(prompt, _length(4.0)))

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        clip: comfy.sd.CLIP | None,
        prompt: str,
        seconds: float,
        seed: int,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        memory: MemoryConfig | None = None,
        start_image: Tensor | None = None,
        vae: comfy.sd.VAE | None = None,
        state: Stream | None = None,
        style: str = "",
        cut: bool = True,
        seam: SeamChoice = "plain",
    ) -> io.NodeOutput:
        size, fps = (width, height), float(FPS)
        if state is not None:
            pixels = state.spec.shape.pixels
            size, fps = (pixels.width, pixels.height), state.film.plan.fps
        conditioning = encode_shots(clip, plan_shot(prompt, _length(seconds), seed, style, fps))
        stream = make_stream(
            model,
            conditioning,
            size=size,
            seed=FILM_SEED,
            steps=steps,
            guidance=guidance,
            memory=memory,
            picture=(start_image, vae),
            state=state,
            node=str(cls.hidden.unique_id),
            title="LongLive Shot",
            cut=cut,
            seam=seam,
        )
        notes = unknown_word_notes(clip, prompt)
        if state is None:
            notes += muted_note(cls.hidden.extra_pnginfo, str(cls.hidden.unique_id))
        stream = replace(stream, notes=tuple(notes))
        text = "\n".join([_time_range(stream.film.plan, stream.first), *notes])
        return io.NodeOutput(stream, stream, ui=ui.PreviewText(text))


def _length(seconds: float) -> Length:
    return Length(Decimal(str(seconds)), "s")


def _time_range(plan: BlockPlan, first: int) -> str:
    """Describes the time range in the film of the shot that begins with block `first`."""
    start = plan.blocks[first].video_start / plan.fps
    return f"shot {plan.shots}: {start:.2f} s to {plan.seconds:.2f} s, {plural(len(plan.blocks) - first, 'block')}"
