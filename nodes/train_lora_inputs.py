"""The inputs of LongLive Train LoRA."""

from __future__ import annotations

from comfy_api.latest import io

from . import tooltips
from .inputs import SIZE_UNIT, seed_input, text_input
from .training_data import data_sets

NO_PRIOR = "none"


def what_is_trained() -> list[io.Input]:
    """The inputs for the model, the videos and the name of the LoRA."""
    return [
        io.Model.Input(
            "model", tooltip="From LongLive Model Loader or LongLive Mini, without a LoRA. It is not changed."
        ),
        io.Clip.Input("clip", tooltip=tooltips.CLIP),
        io.Vae.Input("vae", tooltip="Encodes the videos, and decodes the sample films."),
        io.Combo.Input(
            "data",
            options=data_sets(),
            tooltip="A folder in the input folder with videos, and beside each a text file of the same name "
            "that says what it shows (fox.mp4, fox.txt). Or a JSONL file. Press R after adding one.",
        ),
        io.String.Input(
            "output_name",
            default="my_lora",
            tooltip="Name of the LoRA in models/loras. A number is added. The run itself, with its curve and "
            "sample films, is in output/training.",
        ),
    ]


def how_it_is_trained() -> list[io.Input]:
    """The inputs for the settings of the run. Workflows store widgets by position: append only."""
    return [
        io.Int.Input(
            "rank",
            default=32,
            min=1,
            max=512,
            tooltip="Size of the LoRA. 16 to 32 for one character, thing or style; more learns more and needs "
            "more memory.",
        ),
        io.Int.Input(
            "steps",
            default=500,
            min=1,
            max=1_000_000,
            tooltip="Steps in all; each learns from one clip. A larger number makes a finished run go on.",
        ),
        io.Float.Input(
            "learning_rate",
            default=1e-4,
            min=1e-7,
            max=1.0,
            step=1e-7,
            tooltip="How much each step changes the LoRA. 0.0001 suits LongLive 5B, 0.001 LongLive Mini. If "
            "the loss jumps, lower it.",
        ),
        io.Int.Input(
            "sample_every",
            default=100,
            min=0,
            max=1_000_000,
            tooltip="Steps between two sample films, which this node plays. 0: none.",
        ),
        text_input(
            "sample_script",
            "",
            "Shots of the sample films, as in LongLive ShotScript. Empty: two blocks of the first caption.",
        ),
        seed_input("seed", 0, "Seed of the LoRA, of the order of the clips and of the sample films."),
        io.Int.Input(
            "resolution",
            default=0,
            min=0,
            max=2048,
            step=SIZE_UNIT,
            advanced=True,
            tooltip="The clips get about the area of a square with this side, in pixels, and keep their shape. "
            "0: 128 for LongLive Mini, 512 for LongLive 5B.",
        ),
        io.Int.Input(
            "blocks",
            default=4,
            min=1,
            max=64,
            advanced=True,
            tooltip="Length of the longest training clip in blocks of 1.33 s. Longer videos become several "
            "clips. Fewer need less memory.",
        ),
        io.Combo.Input(
            "prior",
            options=[NO_PRIOR, *data_sets()],
            default=NO_PRIOR,
            optional=True,
            advanced=True,
            tooltip="A folder of films of what the model knows, with their texts, as for data; films that it has made "
            "itself serve best. Every second step learns from them, so that the LoRA leaves their words as they are.",
        ),
    ]
