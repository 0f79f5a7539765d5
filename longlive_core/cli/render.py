"""`longlive render`: renders a shot script as a film, or resumes a film from its take."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..render.prepare_take import take_folder
from ..render.settings import RenderSettings
from ..script import ShotScript
from ..script.prompt_folder import read_films, read_script
from ..take import Take
from ..take.take import check_no_retakes
from ..types import BLOCK_FRAMES, FPS
from .arguments import add_output_arguments, add_setting_arguments, given_settings, unrecorded_settings
from .console import job_hooks
from .run_job import run_job, set_threads
from .script import LINES_HELP, SCRIPT_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("script", type=Path, nargs="?", help=f"{SCRIPT_HELP}; not needed with --resume")
    parser.add_argument("--one-film-a-line", action="store_true", help=f"{LINES_HELP}: FILM-1.mp4, FILM-2.mp4, …")
    add_output_arguments(parser)
    parser.add_argument("--resume", type=Path, metavar="TAKE", help="continue a film from the FILM.take of its render")
    parser.add_argument("--no-take", action="store_true", help="store no blocks: no resuming and no retakes")
    parser.add_argument("--no-snapshots", action="store_true", help="store no KV cache: a retake rebuilds it first")
    add_setting_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Renders the film; returns the exit code."""
    from ..render.job import Job

    set_threads(args)
    settings = render_settings(args)
    films: list[tuple[RenderSettings, ShotScript | None]] = [(settings, None)]
    if args.one_film_a_line:
        scripts = read_films(args.script)
        outputs = _numbered(settings.output, len(scripts))
        films = [(replace(settings, output=output), script) for output, script in zip(outputs, scripts, strict=True)]
        _check_films(films)
    for number, (film, script) in enumerate(films, 1):
        with job_hooks() as (bar, hooks):
            code = run_job(Job(film, script=script, storyboard=args.preview, **hooks), bar, args)
        if code:
            if left := [str(later.output) for later, _ in films[number:]]:
                print(f"not begun: {', '.join(left)}; put their lines into another file, and name other films with -o")
            return code
    return 0


def _check_films(films: Sequence[tuple[RenderSettings, ShotScript | None]]) -> None:
    """Checks all films before the first one is made. Raises ScriptError, or FileExistsError: see `check_no_retakes`."""
    for settings, script in films:
        if script is not None:
            script.plan(FPS, BLOCK_FRAMES)
        if settings.take:
            check_no_retakes(take_folder(settings))


def _numbered(output: Path, count: int) -> list[Path]:
    """The files of several films: FILM-1.mp4, FILM-2.mp4, …"""
    digits = len(str(count))
    return [output.with_name(f"{output.stem}-{number:0{digits}}{output.suffix}") for number in range(1, count + 1)]


def render_settings(args: argparse.Namespace) -> RenderSettings:
    """Returns the settings of the arguments. Raises ValueError, also if they or the script differ from the take's."""
    given, unrecorded = given_settings(args), unrecorded_settings(args)
    if args.resume is not None:
        if args.one_film_a_line:
            raise ValueError("--one-film-a-line makes new films; leave --resume out")
        if args.no_take:
            raise ValueError("--resume continues a take, --no-take stores none; leave one of them out")
        if args.script is not None:
            _check_script(Take.load(args.resume), read_script(args.script))
        return RenderSettings.resumed(args.resume, args.output, given, **unrecorded)
    if args.script is None:
        raise ValueError("a film needs a SCRIPT, or --resume with the take of a film that was begun")
    if args.output is None:
        raise ValueError("name the film: -o FILM.mp4")
    stored = {"take": not args.no_take, "snapshots": not args.no_snapshots}
    return RenderSettings.of(args.script, args.output, given, **unrecorded, **stored)


def _check_script(take: Take, script: ShotScript) -> None:
    """Raises ValueError with the first difference if the script is not the take's."""
    if script == take.script:
        return
    lines = zip(take.script.format().splitlines(), script.format().splitlines(), strict=False)
    was, now = next(((was, now) for was, now in lines if was != now), ("", "another number of shots"))
    raise ValueError(
        f"{take.folder} is a film of another script: it has '{was}', this one '{now}'; leave the script out to "
        "continue the film, or change a shot with `longlive retake`"
    )
