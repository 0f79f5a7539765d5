"""`longlive render`: renders a shot script as a film, or resumes a take by its script or an edited one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..render.prepare_take import take_folder
from ..render.settings import RenderSettings
from ..render.variant_settings import numbered_films
from ..script import ShotScript
from ..script.cast import find_cast
from ..script.prompt_folder import read_films, read_script
from ..take import Take, follow, preview_changes
from ..take.cast import Cast
from ..take.take import FILE, check_no_retakes
from ..types import BLOCK_FRAMES, FPS
from ..units import plural
from .arguments import add_output_arguments, add_setting_arguments, given_settings, unrecorded_settings
from .console import job_hooks
from .render_variants import run_variants, variants_settings
from .run_job import run_job, set_threads
from .script import LINES_HELP, SCRIPT_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("script", type=Path, nargs="?", help=f"{SCRIPT_HELP}; with --resume: an edited one")
    parser.add_argument("--one-film-a-line", action="store_true", help=f"{LINES_HELP}: FILM-1.mp4, FILM-2.mp4, …")
    variants = (
        "make N films of the script, FILM-1.mp4, FILM-2.mp4, …, with the seed and the next ones, as many at once "
    )
    variants += "as the memory holds; with --resume: the N takes that begin with FILM-1.take"
    parser.add_argument("--variants", type=int, metavar="N", help=variants)
    add_output_arguments(parser)
    parser.add_argument("--resume", type=Path, metavar="TAKE", help="continue a film from the FILM.take of its render")
    dry = "sample nothing: print the blocks that the film, or an edited script of it, would sample"
    parser.add_argument("--dry-run", action="store_true", help=dry)
    parser.add_argument("--no-take", action="store_true", help="store no blocks: no resuming and no retakes")
    parser.add_argument("--no-snapshots", action="store_true", help="store no KV cache: a retake rebuilds it first")
    add_setting_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Renders the film; returns the exit code."""
    from ..render.job import Job

    if args.dry_run:
        for line in dry_run_lines(args):
            print(line)
        return 0
    set_threads(args)
    settings = render_settings(args)
    if args.variants is None and args.resume and args.script:
        settings, edited = edited_film(args, settings)
        with job_hooks(args) as (bar, hooks):
            return run_job(Job(settings, storyboard=args.preview, **edited, **hooks), bar, args)
    if args.variants is not None:
        return run_variants(args, variants_settings(args, settings))
    films: list[tuple[RenderSettings, ShotScript | None]] = [(settings, None)]
    if args.one_film_a_line:
        scripts = read_films(args.script)
        outputs = numbered_films(settings.output, len(scripts))
        films = [(replace(settings, output=output), script) for output, script in zip(outputs, scripts, strict=True)]
        _check_films(films)
    for number, (film, script) in enumerate(films, 1):
        with job_hooks(args) as (bar, hooks):
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


def render_settings(args: argparse.Namespace) -> RenderSettings:
    """Returns the settings of the arguments. Raises ValueError, also if they differ from the take's."""
    given, unrecorded = given_settings(args), unrecorded_settings(args)
    if args.resume is not None:
        if args.one_film_a_line:
            raise ValueError("--one-film-a-line makes new films; leave --resume out")
        if args.no_take:
            raise ValueError("--resume continues a take, --no-take stores none; leave one of them out")
        return RenderSettings.resumed(args.resume, args.output, given, **unrecorded)
    if args.script is None:
        raise ValueError("a film needs a SCRIPT, or --resume with the take of a film that was begun")
    if args.output is None:
        raise ValueError("name the film: -o FILM.mp4")
    stored = {"take": not args.no_take, "snapshots": not args.no_snapshots}
    return RenderSettings.of(args.script, args.output, given, **unrecorded, **stored)


def edited_film(args: argparse.Namespace, settings: RenderSettings) -> tuple[RenderSettings, dict[str, Any]]:
    """Returns the settings and arguments of the job that makes a take's film by an edited script.

    Raises ValueError if the script is of another film and -o names no file for it, and as `follow`.
    """
    take, script = Take.load(args.resume), read_script(args.script)
    cast = {"cast": Cast.read(script, lambda file: find_cast(file, args.script.parent)).recorded} if script.cast else {}
    changes = preview_changes(take, script, cast)
    if not changes.another_film:
        return settings, {"take": follow(take, script)}
    if args.output is None or take_folder(settings).resolve() == take.folder.resolve():
        kept = f"{changes.count('kept')} of {plural(len(take.plan.blocks), 'block')}"
        raise ValueError(
            f"this script is another film than {take.folder}: the shots, their lengths, cuts, definitions or cast "
            f"differ; name it with -o, and {kept} are taken over"
        )
    return replace(settings, script=args.script, resume=None), {"script": script, "earlier": take}


def dry_run_lines(args: argparse.Namespace) -> Iterator[str]:
    """Yields what a render would sample. Raises as the render would, before it loads the model."""
    if args.variants is not None:
        raise ValueError("--dry-run describes one film, of which --variants makes several; leave one of them out")
    settings = render_settings(args)
    if args.resume is not None:
        take = Take.load(args.resume)
        changes = preview_changes(take, take.script if args.script is None else read_script(args.script))
        yield ("another film: " if changes.another_film else "") + changes.line()
        return
    assert settings.script is not None
    scripts = read_films(settings.script) if args.one_film_a_line else [read_script(settings.script)]
    for script in scripts:
        plan = script.plan(FPS, BLOCK_FRAMES)
        yield f"a new film: {plural(plan.shots, 'shot')}, {plural(len(plan.blocks), 'block')}, {plan.seconds:.1f} s"
    folder = take_folder(settings)
    if len(scripts) == 1 and (folder / FILE).is_file():
        yield f"as an edit of {folder} (--resume): {preview_changes(Take.load(folder), scripts[0]).line()}"
