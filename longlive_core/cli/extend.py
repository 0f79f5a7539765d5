"""`longlive extend`: adds shots to the end of a film that was made, or of any video."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..render.settings import RenderSettings
from ..script.source import read_text
from ..take import Take
from ..take.append import append
from ..units import plural
from .arguments import add_output_arguments, add_setting_arguments, given_settings, unrecorded_settings
from .console import job_hooks, stopped_early
from .run_job import run_job, set_threads

if TYPE_CHECKING:
    from ..render.job import Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("source", type=Path, metavar="TAKE|VIDEO", help="the FILM.take of a render, or any video")
    parser.add_argument("script", type=Path, help="a ShotScript file with the shots to add")
    parser.add_argument("--prompt", metavar="TEXT", help="a description of the VIDEO, as in a script")
    add_output_arguments(parser)
    add_setting_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Makes the longer film; returns the exit code."""
    from ..video.clip import ClipStopped

    set_threads(args)
    with job_hooks(args) as (bar, hooks):
        try:
            job, shot = extend_job(args, **hooks)
        except ClipStopped:
            bar.end()
            return stopped_early()
        bar.end()
        code = run_job(job, bar, args)
    for line in extend_lines(job, shot):
        print(line)
    return code


def extend_job(args: argparse.Namespace, **hooks: Any) -> tuple[Job, int]:  # noqa: ANN401
    """Returns the job of the longer film and the number (from 1) of the shot that it continues. Encodes a video.

    hooks: leader, on_progress, on_note and should_stop of `Job`. Raises ValueError (including ScriptError), OSError,
    and ClipStopped as `Job` does.
    """
    from ..render.given_video import GivenVideo
    from ..render.job import Job

    given, unrecorded = given_settings(args), unrecorded_settings(args)
    if args.source.is_dir():
        if args.prompt is not None:
            raise ValueError("--prompt describes a video; leave it out for a take")
        settings = RenderSettings.resumed(args.source, args.output, given, **unrecorded)
        take = Take.load(args.source)
        longer = append(take, read_text(args.script))
        _print_reading(longer)
        return Job(settings, take=longer, storyboard=args.preview, **hooks), len(take.shots)
    if args.preview:
        raise ValueError("--preview needs a take; leave it out to continue a video")
    if args.output is None:
        raise ValueError("name the film: -o FILM.mp4")
    if args.prompt is None:
        raise ValueError("describe the video with --prompt TEXT: the model reads the text with the video's frames")
    if args.output.resolve() == args.source.resolve():
        raise ValueError(f"the film would replace the video {args.source}; name another file with -o")
    settings = RenderSettings.of(None, args.output, given, **unrecorded)
    video = GivenVideo(settings, args.source, args.prompt, read_text(args.script), hooks.get("should_stop"))
    _print_reading(video.take)
    return Job(settings, video=video, **hooks), 1


def _print_reading(take: Take) -> None:
    for line in take.script.reading.lines():
        print(line)


def extend_lines(job: Job, number: int) -> Iterator[str]:
    """Yields a report: the blocks that were reused and sampled, and the seam after shot `number` (from 1)."""
    report, take = job.film.report, job.take
    if take is None:
        return
    yield f"reused {plural(len(report.stored), 'block')}, sampled {len(report.sampled)}, of {len(job.plan.blocks)}"
    if take.complete:
        from ..render.seam import format_flicker, seam_flicker

        joins = "continues" if take.script.shots[number].continues else "cuts from"
        yield f"shot {number + 1} {joins} shot {number}; {format_flicker(seam_flicker(take, job.mini.vae, number - 1))}"
