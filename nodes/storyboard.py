"""The node that makes the storyboard of a film: a still of every shot, before the film that begins with them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sd
import folder_paths
from comfy_api.latest import io, ui
from PIL import Image

from ..longlive_core.film.film import Film
from ..longlive_core.film.kept_store import KeptStore
from ..longlive_core.film.take_store import TakeStore
from ..longlive_core.pipeline.decode import QUEUE_DEPTH, DecodedFrame
from ..longlive_core.pipeline.stills import opening_pieces
from ..longlive_core.take.stills import save_still
from ..longlive_core.types import Block
from . import tooltips
from .film_spec import make_storyboard
from .films import Place
from .kept_take import keep_storyboard
from .native_vae import decoder_patcher
from .routes import films
from .run_stream import StreamRun
from .take_record import TakeRecord
from .types import CATEGORY, FILM_TYPES, Stream, StreamType
from .vae import decoder, slice_bytes

BOARD = ".board"
"""Behind the id of a sampler: where the page is told of the storyboard of its film."""


class StoryboardNode(io.ComfyNode):
    """STREAM to stills, and to a STREAM whose shots begin with them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveStoryboard",
            display_name="LongLive Storyboard",
            category=CATEGORY,
            description="Makes a still of every shot before the film, from the first block of each. The film of its "
            "STREAM begins its shots with exactly these blocks.",
            search_aliases=["longlive", "storyboard", "stills", "preview", "contact sheet", "keyframes"],
            inputs=[
                io.MultiType.Input(
                    "stream", FILM_TYPES, tooltip="The film, from LongLive Streaming Sampler or LongLive Shot."
                ),
                io.Vae.Input("vae", tooltip=tooltips.VAE),
            ],
            outputs=[
                StreamType.Output(
                    display_name="STREAM", tooltip="The film, whose shots begin with the blocks of the storyboard."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, stream: Stream, vae: comfy.sd.VAE) -> io.NodeOutput:
        chunk_decoder, place = decoder(vae, stream.latent_format), Place.current()
        film, board = storyboard_streams(stream, place.workflow, films().user_of(place.client))
        stills = Stills(board)
        with films().making(board, replace(place, node=f"{stream.node}{BOARD}")) as told:
            told.update(take=TakeRecord(board).name, total_frames=len(board.film.plan.blocks) - board.first)
            run = StreamRun(board, beside=[decoder_patcher(vae)], memory=slice_bytes(vae, stream.spec.shape), film=told)
            with run:
                frames = run.decoded(chunk_decoder, stills.has, pieces=opening_pieces)
                for frame in run.shown(run.stage("decoding", frames, QUEUE_DEPTH)):
                    if stills.add(frame):
                        told.update(frames=stills.count)
        return io.NodeOutput(film, ui=stills.ui)


def storyboard_streams(stream: Stream, workflow: str, user: str) -> tuple[Stream, Stream]:
    """Returns the stream of the film that begins with its storyboard, and that of the storyboard.

    workflow, user: see `keep`; if the film keeps a take, the storyboard is in it. Raises ValueError for a stream that
    has a storyboard already or that samples nothing, and as `keep_storyboard`.
    """
    film, spec = stream.film, stream.spec
    if (stream.recorded or {}).get("storyboard", "off") != "off":
        raise ValueError(f"{stream.title} (node {stream.node}) has a storyboard of its own: set its storyboard to off")
    if film.start_generation is None or (isinstance(film.store, TakeStore) and not isinstance(film.store, KeptStore)):
        raise ValueError(
            "this STREAM is of a take or of a given video, whose blocks are there already: connect LongLive Storyboard "
            "behind LongLive Streaming Sampler or LongLive Shot, and LongLive Save Take behind it"
        )
    store = keep_storyboard(stream, workflow, user)
    board = make_storyboard(spec, film.plan, film.start, film.earlier, store)
    begun = Film(film.plan, spec, start=film.start, earlier=film.earlier, storyboard=board)
    recorded = {**(stream.recorded or {}), "storyboard": "first"}
    return replace(stream, film=begun, recorded=recorded, live=None), replace(stream, film=board, live=None)


class Stills:
    """The stills of a storyboard: small in its take, and as pictures of the film's size for the node."""

    def __init__(self, board: Stream) -> None:
        store, pixels, temp = board.film.store, board.spec.shape.pixels, folder_paths.get_temp_directory()
        self._take, self._first_block = store.take if isinstance(store, TakeStore) else None, board.first
        place = folder_paths.get_save_image_path("LongLive_storyboard", temp, pixels.width, pixels.height)
        self._folder, self._name, self._first, self._subfolder, _ = place
        self._results = list[ui.SavedResult]()

    @property
    def count(self) -> int:
        """The number of stills so far."""
        return len(self._results)

    @property
    def ui(self) -> dict[str, Any]:
        """The stills as the node shows them."""
        return {"images": self._results}

    def has(self, block: Block) -> bool:
        """Whether a block need not be decoded: the take has its still, or it is of the film that this one continues."""
        if block.index < self._first_block:
            return True
        still = self._still(block.spec.shot)
        return still is not None and still.is_file()

    def add(self, frame: DecodedFrame) -> bool:
        """Takes the next decoded latent frame; returns whether it completes a still. Raises OSError."""
        if frame.block.index < self._first_block:
            return False
        if frame.frames is None:
            still = self._still(frame.block.shot)
            assert still is not None
            shutil.copyfile(still, self._next(still.suffix))
        elif frame.last:
            picture = frame.frames.wait()[-1]
            if self._take is not None:
                shot = frame.block.shot
                save_still(self._take, shot, self._take.shots[shot].chosen, picture)
            Image.fromarray(picture.numpy()).save(self._next(".png"), compress_level=1)
        return frame.last

    def _still(self, shot: int) -> Path | None:
        take = self._take
        return None if take is None else take.still(shot, take.shots[shot].chosen)

    def _next(self, suffix: str) -> Path:
        """The path of the next picture, which the node shows."""
        name = f"{self._name}_{self._first + self.count:05}_{suffix}"
        self._results.append(ui.SavedResult(name, self._subfolder, io.FolderType.temp))
        return Path(self._folder) / name
