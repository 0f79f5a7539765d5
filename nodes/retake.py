"""Nodes that load a take, or retake one of its shots."""

from __future__ import annotations

from typing import get_args

import comfy.model_patcher
import comfy.sd
from comfy_api.latest import io, ui

from ..longlive_core.take import Take
from ..longlive_core.take.live_versions import with_versions_of
from ..longlive_core.take.lock import TakeLock
from ..longlive_core.take.retake import Mode, retake
from ..longlive_core.take.take import FILE
from . import tooltips
from .inputs import seed_input, text_input
from .take_folders import check_take, list_takes, take_digest, take_folder
from .take_settings import status_text, take_stream
from .types import CATEGORY, StateType, StreamType, TakeType


class LoadTake(io.ComfyNode):
    """A take on disk to STREAM, STATE and TAKE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveLoadTake",
            display_name="LongLive Load Take",
            category=CATEGORY,
            description="Loads a film from disk, block by block, that LongLive Save Take or the command line stored. "
            "Missing blocks are sampled with the settings of the take.",
            search_aliases=["longlive", "resume", "load latent", "continue", "extend"],
            inputs=[
                io.Combo.Input(
                    "take",
                    options=list_takes(),
                    tooltip="A take in the output folder; the newest is first in the list.",
                ),
                io.Model.Input("model", tooltip="The model that rendered the take, with the same LoRAs."),
                io.Clip.Input("clip", tooltip="The text encoder of that model."),
            ],
            outputs=[
                StreamType.Output(display_name="STREAM", tooltip="The film, with the versions chosen in the take."),
                StateType.Output(display_name="STATE", tooltip=tooltips.STATE),
                TakeType.Output(display_name="TAKE", tooltip="For LongLive Retake."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, take: str | None = None) -> bool:
        return check_take(take)

    @classmethod
    def fingerprint_inputs(cls, take: str, **_: object) -> str:
        return take_digest(take)

    @classmethod
    def execute(cls, take: str, model: comfy.model_patcher.ModelPatcher, clip: comfy.sd.CLIP | None) -> io.NodeOutput:
        loaded = Take.load(take_folder(take))
        stream, notes = take_stream(loaded, model, clip, str(cls.hidden.unique_id), "LongLive Load Take")
        return io.NodeOutput(stream, stream, loaded, ui=ui.PreviewText(status_text(loaded, stream, notes)))


class Retake(io.ComfyNode):
    """Adds a version of one shot to a take and returns the film with it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveRetake",
            display_name="LongLive Retake",
            category=CATEGORY,
            description="Renders a new version of one shot of a take, with another seed or prompt. Earlier shots stay "
            "identical, bit for bit. Later shots are rendered again (ripple) or stay unchanged (keep). The take "
            "stores every version.",
            search_aliases=["longlive", "regenerate shot", "another take", "fix shot", "inpaint"],
            inputs=[
                TakeType.Input(
                    "take", tooltip="From LongLive Load Take, LongLive Save Take or another LongLive Retake."
                ),
                io.Model.Input("model", tooltip="The model that rendered the take, with the same LoRAs."),
                io.Clip.Input("clip", tooltip="The text encoder of that model."),
                io.Int.Input("shot", default=1, min=1, max=1000, tooltip="Number of the shot; the first is 1."),
                seed_input(
                    "seed",
                    1,
                    "Seed of this shot. If the take has a version with this seed and prompt, it is chosen and "
                    "not sampled again.",
                ),
                text_input(
                    "prompt",
                    "",
                    "What the shot shows, written like a line of the take's script. Empty: the current prompt.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(get_args(Mode)),
                    default="ripple",
                    tooltip="ripple renders the later shots again, so that they follow from the new version. keep "
                    "leaves them unchanged (a splice).",
                ),
            ],
            outputs=[
                StreamType.Output(display_name="STREAM", tooltip="The film with the new version of the shot."),
                StateType.Output(display_name="STATE", tooltip=tooltips.STATE),
                TakeType.Output(display_name="TAKE", tooltip="For another LongLive Retake."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        take: Take,
        model: comfy.model_patcher.ModelPatcher,
        clip: comfy.sd.CLIP | None,
        shot: int,
        seed: int,
        prompt: str,
        mode: Mode,
    ) -> io.NodeOutput:
        if not (take.folder / FILE).is_file():
            raise ValueError(
                f"{take.folder} was removed: change name_prefix of LongLive Save Take, or load another take"
            )
        # No other process may change the take between loading and saving it.
        with TakeLock(take.folder):
            saved = Take.load(take.folder)
            changed = retake(with_versions_of(take, saved), shot, seed, prompt, mode, reuse=True).take
            stream, notes = take_stream(changed, model, clip, str(cls.hidden.unique_id), "LongLive Retake")
            # Saved before sampling, so that a retake that is cancelled or killed resumes in this version.
            if changed != saved:
                changed.save()
        chosen = changed.shots[shot - 1].chosen
        notes = [f"shot {shot}: version {chosen} of {len(changed.shots[shot - 1].versions)} (numbered from 0)", *notes]
        return io.NodeOutput(stream, stream, changed, ui=ui.PreviewText(status_text(changed, stream, notes)))
