"""`longlive retake`: makes one shot of a film again."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..render.settings import OUTPUT_SETTINGS, RenderSettings
from ..take import Retake, Take, retake
from ..units import numbered, plural
from .arguments import add_output_arguments, given_settings, unrecorded_settings
from .console import job_hooks
from .run_job import run_job, set_threads

if TYPE_CHECKING:
    from ..render.job import Job


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("take", type=Path, metavar="TAKE", help="the FILM.take of a render")
    parser.add_argument("--shot", type=int, required=True, metavar="N", help="number of the shot, from 1")
    parser.add_argument("--seed", type=int, help="seed of the shot (without --prompt: a seed that it has not had)")
    parser.add_argument("--prompt", metavar="TEXT", help="text of the shot, as in a script (its present text)")
    parser.add_argument("--versions", metavar="N", help=argparse.SUPPRESS)  # of earlier versions
    modes = "ripple: later shots are made again too; keep: they stay unchanged, spliced (ripple)"
    parser.add_argument("--mode", choices=["ripple", "keep"], default="ripple", help=modes)
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Makes the retake and writes the film; returns the exit code."""
    from ..render.job import Job

    set_threads(args)
    if args.versions is not None:
        made = shlex.join(["longlive", "cover", str(args.take), "--shot", str(args.shot), "--takes", args.versions])
        raise ValueError(f"--versions is now a command of its own: {made}")
    settings, changed = retake_settings(args)
    with job_hooks(args) as (bar, hooks):
        job = Job(settings, take=changed.take, storyboard=args.preview, **hooks)
        code = run_job(job, bar, args)
    for line in retake_lines(job, changed, args.mode):
        print(line)
    return code


def retake_settings(args: argparse.Namespace) -> tuple[RenderSettings, Retake]:
    """Returns the settings of the film and the retake. Raises ValueError and ScriptError."""
    if args.preview and args.mode == "keep":
        raise ValueError("--preview makes one block and leaves the other shots unchanged: leave --mode out")
    changed = retake(Take.load(args.take), args.shot, args.seed, args.prompt, args.mode, storyboard=args.preview)
    given = given_settings(args, OUTPUT_SETTINGS)
    return RenderSettings.resumed(args.take, args.output, given, **unrecorded_settings(args)), changed


def retake_lines(job: Job, changed: Retake, mode: str) -> Iterator[str]:
    """Yields a report: the blocks that were reused and sampled, and the step across the seam of a spliced shot."""
    report, take, number = job.film.report, changed.take, changed.shot + 1
    seed = take.shots[changed.shot].versions[changed.version].seed
    yield f"shot {number} is version {changed.version}" + ("" if seed is None else f", seed {seed}")
    blocks = len(job.plan.blocks)
    reused, sampled = (numbered("block", indices) for indices in (report.stored, report.sampled))
    yield (
        f"reused {reused}; sampled {sampled}: {len(report.sampled)} of {blocks} blocks, "
        f"{report.share_of_calls(job.settings.steps):.0%} of a whole render's model calls"
    )
    copied = job.render.copied
    of_all = f"{copied} of {plural(blocks, 'block')}"
    yield f"the film: {of_all} copied without encoding them again, {blocks - copied} decoded"
    if mode == "keep" and number < len(take.shots) and take.complete:
        from ..render.seam import format_flicker, seam_flicker

        line = f"shot {number + 1} is spliced after shot {number}; "
        line += format_flicker(seam_flicker(take, job.mini.vae, changed.shot))
        if changed.before.complete:
            was = seam_flicker(changed.before, job.mini.vae, changed.shot)
            line += f" (before the retake {was.seam:.1f}, {was.boundary:.1f})"
        yield line
