"""Prepares a take on disk before its film is made: a new take or a resumed one."""

from __future__ import annotations

import errno
from pathlib import Path

from ..script import ShotScript
from ..take import Take
from ..take.carry_over import carry_over
from ..take.from_video import check_video
from ..take.lock import TakeLock
from ..take.settings import Settings, machine_notes, machine_settings, with_unrecorded
from ..take.take import FILE, SUFFIX, block_counts_in
from ..units import plural
from .settings import FILE_SETTINGS, RenderSettings, check_settings

# The error numbers of a folder that cannot be written.
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def take_folder(settings: RenderSettings) -> Path:
    """Returns the folder of a new film's take, which is beside the film's file."""
    return settings.output.with_suffix(SUFFIX)


def new_take(settings: RenderSettings, script: ShotScript, recorded: Settings) -> Take:
    """Makes the take of a new film; nothing is written."""
    output: Settings = {"name": settings.output.name, "codec": settings.codec, "quality": settings.quality}
    return Take.new(take_folder(settings), script, recorded, machine_settings(), output)


def lock_take(folder: Path, take: Take | None) -> TakeLock | None:
    """Locks a take's folder; None if it cannot be written and the film of `take` is complete, so that it need not be.

    Raises BlockingIOError and OSError as `TakeLock` does.
    """
    try:
        return TakeLock(folder)
    except OSError as error:
        if error.errno in READ_ONLY and take is not None and take.complete:
            return None
        raise


def check_film_is_free(take: Take, film: Path) -> None:
    """Raises FileExistsError if the file is the film of another take, which must not be overwritten."""
    other = film.with_suffix(SUFFIX)
    if (other / FILE).is_file() and other.resolve() != take.folder.resolve():
        raise FileExistsError(f"{film} is the film of {other}, not of {take.folder}; name another file with -o")


def begin_take(take: Take, earlier: Take | None = None, *, storyboard: bool = False) -> list[str]:
    """Writes a new take and removes one in its place that has no retakes; returns notes.

    earlier: another take, whose first blocks are taken over where they are the same. Raises FileExistsError if a
    storyboard would replace a film, ValueError if the take would replace `earlier`, and as `Take.begin`.
    """
    if earlier is not None and earlier.folder.resolve() == take.folder.resolve():
        raise ValueError(f"{take.folder} holds the film whose blocks are taken over; name another film with -o")
    film_blocks, storyboard_blocks = block_counts_in(take.folder)
    if storyboard and film_blocks:
        raise FileExistsError(
            f"{take.folder} holds a film that a storyboard would replace; name another film with -o, or add the "
            f"missing blocks with `longlive render --resume {take.folder} --preview`"
        )
    take.begin()
    if earlier is not None:
        count = carry_over(earlier, take)
        return [f"{plural(count, 'block')} taken over from {earlier.folder}"]
    if storyboard_blocks and not film_blocks:
        return [f"the storyboard in {take.folder} is replaced; `longlive render --resume` would have used it"]
    return []


def resume_take(take: Take, recorded: Settings, *, read_only: bool = False) -> list[str]:
    """Checks that a take has the settings of this render, and saves it unless it is `read_only`; returns notes.

    Raises ValueError that names each difference, and ValueError for a damaged block of a given video.
    """
    check_settings(
        take, {name: value for name, value in with_unrecorded(recorded).items() if name not in FILE_SETTINGS}
    )
    check_video(take)
    if read_only:
        return []
    take.remove_partial_files()
    take.save()
    return machine_notes(take.machine, machine_settings())
