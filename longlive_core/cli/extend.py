"""`longlive extend`: more shots behind a film that was made, or behind a video from anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..render.settings import RenderSettings
from ..script.source import read_text
from ..take import Take
from ..take.append import append
from .render import add_output_arguments, add_setting_arguments, given_settings

if TYPE_CHECKING:
    from ..render.job import Job


def extend_arguments(part: argparse.ArgumentParser) -> None:
    """Everything that `extend_job` reads."""
    part.add_argument("source", type=Path, metavar="TAKE|VIDEO", help="the FILM.take of a render, or any video")
    part.add_argument("script", type=Path, help="a ShotScript file: the shots behind it")
    part.add_argument("--prompt", metavar="TEXT", help="what the VIDEO shows, as in a script")
    add_output_arguments(part)
    add_setting_arguments(part)


def extend_job(args: argparse.Namespace, **hooks: Any) -> tuple[Job, int]:  # noqa: ANN401
    """The job of the longer film, and the number of the shot that it continues (from 1). A video is encoded here.

    hooks: on_progress, on_note and should_stop of `Job`. Raises ValueError (ScriptError among them), OSError, and
    ClipStopped as `Job` does.
    """
    from ..render.given_video import GivenVideo
    from ..render.job import Job

    given = given_settings(args)
    written = {"contact_sheet": args.contact_sheet, "decode": args.decode}
    if args.source.is_dir():
        if args.prompt is not None:
            raise ValueError("--prompt is for a video; the shots of a take have theirs")
        settings = RenderSettings.resumed(args.source, args.output, given, **written)
        take = Take.load(args.source)
        longer = append(take, read_text(args.script))
        return Job(settings, take=longer, storyboard=args.preview, **hooks), len(take.shots)
    if args.preview:
        raise ValueError("--preview is for shots behind a take; leave it out to go on from a video")
    if args.output is None:
        raise ValueError("name the film: -o FILM.mp4")
    if args.prompt is None:
        raise ValueError("say what the video shows, --prompt TEXT: the model reads it with its frames")
    if args.output.resolve() == args.source.resolve():
        raise ValueError(f"the film would take the place of the video {args.source}; name another with -o")
    settings = RenderSettings.of(None, args.output, given, **written)
    video = GivenVideo(settings, args.source, args.prompt, read_text(args.script), hooks.get("should_stop"))
    return Job(settings, video=video, **hooks), 1


def extend_lines(job: Job, number: int) -> Iterator[str]:
    """What was made behind shot `number` (from 1), and how the next shot joins it."""
    report, take = job.film.report, job.take
    if take is None:
        return
    yield f"kept {len(report.stored)} blocks, sampled {len(report.sampled)}, of {len(job.plan.blocks)}"
    if take.complete:
        from ..render.seam import format_flicker, seam_flicker

        joins = "goes on from" if take.script.shots[number].continues else "cuts from"
        yield f"shot {number + 1} {joins} shot {number}; {format_flicker(seam_flicker(take, job.mini.vae, number - 1))}"
