"""Nodes that parse a shot script and encode its prompts for the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import comfy.model_management
import comfy.sd
import comfy.utils
from comfy_api.latest import io, ui
from torch import Tensor

from ..longlive_core.script import BlockPlan
from ..longlive_core.script.block_plan import cut_prompt
from ..longlive_core.script.cast import CastEntry
from ..longlive_core.script.reading import COMMENT
from ..longlive_core.take.cast import NO_CAST, Cast
from ..longlive_core.types import FPS
from . import tooltips
from .cast_files import cast_stamps, list_casts, read_cast, read_script
from .checks import check_wires, passed
from .inputs import fps_input, seconds_input, text_input
from .mini import MiniTextModel
from .types import CATEGORY, CastType, ConditioningType, ShotConditioning, Shots, ShotsType

EXAMPLE = """hero: a big red ring

Shot 1 (4s): {hero} sways on the left in front of a striped navy wall
Shot 2 (4s): {hero} circles in the middle against a plain forest wall
"""


class ShotScriptNode(io.ComfyNode):
    """Script text to SHOTS and a block plan."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveShotScript",
            display_name="LongLive ShotScript",
            category=CATEGORY,
            description="Reads a film written as text: one shot per line, with lengths, a style and named things. "
            "Lengths are rounded to whole blocks of 1.33 s (at 24 fps); the plan lists every rounding.",
            search_aliases=["longlive", "shot list", "storyboard", "multi shot", "prompt schedule", "script"],
            inputs=[
                text_input(
                    "script",
                    EXAMPLE,
                    "'Shot 1 (4s): …' or '[0s-4s]: …' or plain lines; 'style:' is added to every shot; 'hero: "
                    "…' defines {hero} for use in shots; '@seed=7' gives a shot its seed; '#' starts a comment. The "
                    "help page has the whole grammar.",
                ),
                seconds_input("default_seconds", 0.1, "Length in seconds of a shot that does not specify one."),
                fps_input("fps", "Video frames per second of the film. The models were trained at 24."),
                CastType.Input(
                    "cast",
                    optional=True,
                    tooltip="Blocks of other films, from LongLive Cast, which shots recall by their names. A line "
                    "cast: FILE above the first shot does the same.",
                ),
            ],
            outputs=[
                ShotsType.Output(display_name="SHOTS", tooltip="The shots, for LongLive Encode Shots."),
                io.String.Output(display_name="plan", tooltip="The plan as text, with every rounding."),
                io.Int.Output(display_name="frames", tooltip="Number of video frames of the film."),
                io.Float.Output(display_name="seconds", tooltip="Length of the film in seconds."),
            ],
        )

    @classmethod
    def validate_inputs(cls, script: str | None = None, input_types: Mapping[str, str] | None = None) -> bool:
        """What a wired cast has is not known here: such a script is read when it runs. Raises ScriptError."""
        wires = input_types or {}
        check_wires(cls, wires)
        return passed(script is None or "cast" in wires or read_script(script).plan(FPS))

    @classmethod
    def fingerprint_inputs(cls, script: str | None = None, **_: object) -> list[tuple[str, int, int]]:
        return cast_stamps(name for name in list_casts() if name in (script or ""))

    @classmethod
    def execute(
        cls, script: str, default_seconds: float, fps: float, cast: tuple[CastEntry, ...] = ()
    ) -> io.NodeOutput:
        shots = read_script(script, cast)
        plan = shots.plan(fps, default_seconds=default_seconds)
        text = "\n".join([plan.text(), *shots.reading.lines((*plan.notes, COMMENT))])
        return io.NodeOutput(Shots(shots, plan, read_cast(shots), cast), text, plan.video_frames, plan.seconds)


class EncodeShots(io.ComfyNode):
    """SHOTS to one embedding per distinct prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveEncodeShots",
            display_name="LongLive Encode Shots",
            category=CATEGORY,
            description="Encodes every distinct prompt of the shots once.",
            search_aliases=["longlive", "clip text encode", "shot prompts"],
            inputs=[
                io.Clip.Input("clip", tooltip=tooltips.CLIP),
                ShotsType.Input("shots", tooltip="From LongLive ShotScript."),
                text_input(
                    "negative", "", "What the film must not show. Only used if guidance is not 1.", advanced=True
                ),
            ],
            outputs=[
                ConditioningType.Output(
                    display_name="SHOT_CONDITIONING",
                    tooltip="The plan and its encoded prompts, for LongLive Streaming Sampler.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip: comfy.sd.CLIP | None, shots: Shots, negative: str) -> io.NodeOutput:
        conditioning = encode_shots(clip, shots.plan, negative, shots.cast)
        conditioning = replace(conditioning, script=shots.script, cast=shots.cast, given=shots.given)
        notes = [
            f"shot {number}: {note}"
            for number, shot in enumerate(shots.script.shots, 1)
            for note in unknown_word_notes(clip, shot.prompt)
        ]
        return io.NodeOutput(conditioning, ui=ui.PreviewText("\n".join(notes)) if notes else None)


def encode_shots(
    clip: comfy.sd.CLIP | None, plan: BlockPlan, negative: str = "", cast: Cast = NO_CAST
) -> ShotConditioning:
    """Encodes each distinct prompt of the plan and of its cast files once. Raises ValueError without a text encoder."""
    prompts = [*distinct_prompts(plan, negative), *(spec.prompt for spec in cast.specs)]
    embeddings = encode_prompts(clip, list(dict.fromkeys(prompts)))
    return ShotConditioning(plan, embeddings, negative, partial(encode_prompt, clip))


def encode_prompts(clip: comfy.sd.CLIP | None, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Encodes prompts to `[1, L, text_dim]`, with the host's progress and interrupts. Raises as `encode_shots`."""
    if clip is None:
        raise ValueError("CLIP is empty: this checkpoint has no text encoder; use Load CLIP with umt5-xxl, type wan")
    progress = comfy.utils.ProgressBar(len(prompts))
    embeddings: dict[str, Tensor] = {}
    for prompt in prompts:
        comfy.model_management.throw_exception_if_processing_interrupted()
        embeddings[prompt] = encode_prompt(clip, prompt)
        progress.update(1)
    return embeddings


def encode_prompt(clip: comfy.sd.CLIP, prompt: str) -> Tensor:
    """Encodes a prompt to `[1, L, text_dim]`; any thread may call it, because it does not use the host's progress."""
    return clip.encode_from_tokens(clip.tokenize(prompt))[0].cpu()


def unknown_word_notes(clip: comfy.sd.CLIP, prompt: str) -> list[str]:
    """Returns a note on words that LongLive Mini does not know; other text encoders know every word."""
    encoder = clip.cond_stage_model
    words = encoder.text.unknown_words(prompt) if isinstance(encoder, MiniTextModel) else []
    return [f"LongLive Mini does not know {', '.join(words)}"] if words else []


def distinct_prompts(plan: BlockPlan, negative: str) -> list[str]:
    """Lists every prompt once, in the film's order, and the first one with a cut, because a STATE may precede it."""
    prompts = [block.prompt for block in plan.blocks]
    return list(dict.fromkeys([*prompts, cut_prompt(prompts[0]), negative]))
