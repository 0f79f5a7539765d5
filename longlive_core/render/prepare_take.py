"""Prepares a take on disk before its film is made: a new take or a resumed one."""

from __future__ import annotations

from pathlib import Path

from ..script import ShotScript
from ..take import Take
from ..take.from_video import check_video
from ..take.settings import Settings, machine_notes, machine_settings, with_unrecorded
from ..take.take import SUFFIX, block_counts_in
from .settings import FILE_SETTINGS, RenderSettings, check_settings


def take_folder(settings: RenderSettings) -> Path:
    """Returns the folder of a new film's take, which is beside the film's file."""
    return settings.output.with_suffix(SUFFIX)


def new_take(settings: RenderSettings, script: ShotScript, recorded: Settings) -> Take:
    """Makes the take of a new film; nothing is written."""
    output: Settings = {"name": settings.output.name, "codec": settings.codec, "quality": settings.quality}
    return Take.new(take_folder(settings), script, recorded, machine_settings(), output)


def begin_take(take: Take, *, storyboard: bool = False) -> list[str]:
    """Writes a new take and removes an earlier one without retakes; returns notes.

    Raises FileExistsError if a storyboard would replace a film, and as `Take.begin`.
    """
    film_blocks, storyboard_blocks = block_counts_in(take.folder)
    if storyboard and film_blocks:
        raise FileExistsError(
            f"{take.folder} holds a film that a storyboard would replace; name another film with -o, or add the "
            f"missing blocks with `longlive render --resume {take.folder} --preview`"
        )
    take.begin()
    if storyboard_blocks and not film_blocks:
        return [f"the storyboard in {take.folder} is replaced; `longlive render --resume` would have used it"]
    return []


def resume_take(take: Take, recorded: Settings) -> list[str]:
    """Checks that a take has the settings of this render, and saves it; returns notes.

    Raises ValueError that names each difference, and ValueError for a damaged block of a given video.
    """
    check_settings(
        take, {name: value for name, value in with_unrecorded(recorded).items() if name not in FILE_SETTINGS}
    )
    check_video(take)
    take.remove_partial_files()
    take.save()
    return machine_notes(take.machine, machine_settings())
