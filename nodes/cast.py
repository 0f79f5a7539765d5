"""The nodes of cast files: one gives a block of another film to a script, one saves a block of a film."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import comfy.sd
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..longlive_core.pipeline.stills import still_pieces
from ..longlive_core.script.cast import SUFFIX, CastEntry
from ..longlive_core.take.cast_file import Card, check_block, check_name, check_replaceable
from ..longlive_core.types import Block, BlockSpec
from . import tooltips
from .cast_files import (
    FOLDER,
    cast_folder,
    cast_path,
    cast_stamps,
    check_made_by,
    entry_of,
    list_casts,
    made_by_model,
)
from .checks import passed
from .native_vae import decoder_patcher
from .run_stream import StreamRun
from .types import CATEGORY, FILM_TYPES, CastType, Stream
from .vae import decoder, slice_bytes


class CastNode(io.ComfyNode):
    """A cast file for a script."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveCast",
            display_name="LongLive Cast",
            category=CATEGORY,
            description="Gives a block of another film to a script, whose shots recall it by its name. Several cast "
            "files are chained.",
            search_aliases=["longlive", "recall", "character", "reference", "consistent character", "named memory"],
            inputs=[
                io.Combo.Input(
                    "cast_name",
                    options=list_casts(),
                    tooltip="A cast file in the folder cast of the input folder, of LongLive Save Cast or of "
                    "longlive cast save.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    optional=True,
                    tooltip="The name by which shots recall the block. Empty: the name that the file has.",
                ),
                CastType.Input("cast", optional=True, tooltip="Further cast files, from another LongLive Cast."),
            ],
            outputs=[
                CastType.Output(display_name="CAST", tooltip="For LongLive ShotScript, or for another LongLive Cast.")
            ],
        )

    @classmethod
    def validate_inputs(cls, cast_name: str | None = None, name: str | None = None) -> bool:
        """Raises ValueError for a file that cannot be read, and for a name that is none."""
        if cast_name is not None:
            Card.load(cast_path(cast_name))
            entry_of(cast_name, name or "")
        return True

    @classmethod
    def fingerprint_inputs(cls, cast_name: str | None = None, **_: object) -> list[tuple[str, int, int]]:
        try:
            return cast_stamps([cast_name] if cast_name else [])
        except (OSError, ValueError):
            return []

    @classmethod
    def execute(cls, cast_name: str, name: str = "", cast: tuple[CastEntry, ...] = ()) -> io.NodeOutput:
        Card.load(cast_path(cast_name))
        return io.NodeOutput((*cast, entry_of(cast_name, name)))


class SaveCast(io.ComfyNode):
    """A block of a film to a cast file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveSaveCast",
            display_name="LongLive Save Cast",
            category=CATEGORY,
            description="Saves a block of a film as a cast file, which shots of other films of the same model and size "
            "recall. The film is sampled up to that block if it is not made yet.",
            search_aliases=["longlive", "save character", "recall", "reference", "keep", "named memory"],
            inputs=[
                io.MultiType.Input("stream", FILM_TYPES, tooltip=tooltips.STREAM),
                io.Vae.Input("vae", tooltip=tooltips.VAE),
                io.Int.Input("shot", default=1, min=1, max=1000, tooltip="Number of the shot; the first is 1."),
                io.Int.Input(
                    "block", default=1, min=1, max=100_000, tooltip="Number of the block in the shot; the first is 1."
                ),
                io.String.Input(
                    "name",
                    default="hero",
                    tooltip="The name by which shots recall the block, and of the file. A cast file of this name is "
                    "replaced.",
                ),
            ],
            outputs=[
                CastType.Output(display_name="CAST", tooltip="For LongLive ShotScript, or for LongLive Cast."),
                io.Image.Output(display_name="IMAGE", tooltip="A picture of the block, which the file has too."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool:
        return passed(name is None or check_name(name))

    @classmethod
    def execute(cls, stream: Stream, vae: comfy.sd.VAE, shot: int, block: int, name: str) -> io.NodeOutput:
        check_name(name)
        path = cast_folder() / f"{name}{SUFFIX}"
        check_replaceable(path)
        spec = check_block(stream.film.plan, shot, block)
        owner = stream.owner(spec.index)
        made_by = made_by_model(owner.spec.model, stream.spec.shape)
        check_made_by(owner.film.store, made_by)
        made, still = block_of(stream, vae, spec)
        origin = f"{stream.title}, shot {shot}, block {block}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # A live script may have changed the prompt since the node began.
        Card(name, made.latents, made.spec.prompt, origin, made_by, still).save(path)
        picture = still.unsqueeze(0).float() / 255
        text = f"{FOLDER}/{path.name}: @recall={name} in a shot brings it back"
        shown = {**ui.PreviewImage(picture, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput((CastEntry(name, path.name),), picture, ui=shown)


def block_of(stream: Stream, vae: comfy.sd.VAE, spec: BlockSpec) -> tuple[Block, Tensor]:
    """Runs a film up to a block; returns it, latents `[1, C, F, H, W]`, and a picture `[H, W, 3]` uint8 of it."""
    found, pictures = list[Block](), list[Tensor]()

    def up_to(blocks: Iterator[Block]) -> Iterator[Block]:
        for block in blocks:
            yield block
            if block.index == spec.index:
                found.append(block)
                return

    chunk_decoder, memory = decoder(vae, stream.latent_format), slice_bytes(vae, stream.spec.shape)
    with StreamRun(stream, beside=[decoder_patcher(vae)], memory=memory) as run:
        frames = run.decoded(chunk_decoder, pieces=lambda blocks: still_pieces(up_to(blocks), spec.index))
        for frame in run.shown(run.stage("decoding", frames)):
            if frame.frames is not None:
                pictures.append(frame.frames.wait()[-1])
    return replace(found[0], latents=found[0].latents.to("cpu", torch.float32)), pictures[-1]
