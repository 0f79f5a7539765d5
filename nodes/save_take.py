"""The node that stores a film in a take while it is sampled."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io, ui

from ..longlive_core.film.film import Film
from ..longlive_core.film.take_store import TakeStore
from ..longlive_core.take import Shot, Take
from ..longlive_core.take.lock import TakeLock
from ..longlive_core.take.settings import machine_notes
from ..longlive_core.take.take import FILE, GIVEN_VIDEO
from . import tooltips
from .checks import passed
from .file_prefix import check_prefix
from .take_folders import takes_under
from .take_settings import machine_of_model, recorded_settings, script_of_stream, status_text
from .types import CATEGORY, FILM_TYPES, StateType, Stream, StreamType, TakeType


class SaveTake(io.ComfyNode):
    """STREAM to a STREAM whose blocks are stored in a take."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LongLiveSaveTake",
            display_name="LongLive Save Take",
            category=CATEGORY,
            description="Stores every block of a film on disk as soon as it is finished. After a crash or a restart, "
            "queue the same workflow and the film continues with the next block.",
            search_aliases=["longlive", "resume", "checkpoint", "continue", "crash", "save latent"],
            inputs=[
                io.MultiType.Input("stream", FILM_TYPES, tooltip=tooltips.STREAM),
                io.String.Input(
                    "name_prefix",
                    default="takes/LongLive",
                    tooltip="Folder and name of the take in the output folder, as in Save Video. If a take of the "
                    "same film exists there, it continues.",
                ),
            ],
            outputs=[
                StreamType.Output(
                    display_name="STREAM", tooltip="The film. Its blocks are stored while another node reads it."
                ),
                TakeType.Output(display_name="TAKE", tooltip="For LongLive Retake."),
                StateType.Output(display_name="STATE", tooltip=tooltips.STATE),
            ],
        )

    @classmethod
    def validate_inputs(cls, name_prefix: str | None = None) -> bool:
        return passed(check_prefix("name_prefix", name_prefix))

    @classmethod
    def execute(cls, stream: Stream, name_prefix: str) -> io.NodeOutput:
        take = open_take(stream, name_prefix)
        film = Film(stream.film.plan, None, TakeStore(take, live=stream.live), earlier=stream.film)
        stored = replace(stream, film=film)
        text = status_text(take, stored, machine_notes(take.machine, machine_of_model(stream.spec.model)))
        return io.NodeOutput(stored, take, stored, ui=ui.PreviewText(text))


def open_take(stream: Stream, prefix: str) -> Take:
    """Returns the newest take under a prefix that was begun with this film, as it was begun, or saves a new take.

    The changes of a live script are in the stream while the server runs. After a restart the graph has only its own
    script, and the film continues as it was begun; the changed versions stay in the take.

    Raises ValueError if the film cannot be written as a script, and OSError if the take cannot be written or another
    process makes it.
    """
    plan, pixels, settings = stream.film.plan, stream.spec.shape.pixels, recorded_settings(stream)
    before, folder = takes_under(prefix, pixels.width, pixels.height)
    for path in before:
        try:
            take = Take.load(path)
        except (FileNotFoundError, ValueError):
            continue  # not a take, or one of another version of LongLive; it stays unchanged
        if take.settings == settings and (first := take.as_begun).plan.blocks == plan.blocks:
            return first
    take = Take.new(folder, script_of_stream(stream), settings, machine_of_model(stream.spec.model))
    take = replace(take, shots=_shots(take, stream))
    with TakeLock(folder):
        if (folder / FILE).exists():
            raise FileExistsError(f"another process created {folder} at the same time: queue again")
        stream.cast.save(take)
        take.save()
    return take


def _shots(take: Take, stream: Stream) -> tuple[Shot, ...]:
    """The take's shots, with the shots of a given video marked as such."""
    first = stream.chain[0]
    given = {block.shot for block in first.film.plan.blocks} if first.recorded is None else set[int]()
    return tuple(
        replace(shot, versions=tuple(replace(version, made=GIVEN_VIDEO) for version in shot.versions))
        if index in given
        else shot
        for index, shot in enumerate(take.shots)
    )
