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
from .console import STOPPED, job_hooks
from .run_job import run_job, set_threads

if TYPE_CHECKING:
    from ..render.job import Job
    from ..render.versions_job import VersionsJob


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("take", type=Path, metavar="TAKE", help="the FILM.take of a render")
    parser.add_argument("--shot", type=int, required=True, metavar="N", help="number of the shot, from 1")
    parser.add_argument("--seed", type=int, help="seed of the shot (without --prompt: a seed that it has not had)")
    parser.add_argument("--prompt", metavar="TEXT", help="text of the shot, as in a script (its present text)")
    versions = "make N versions of the shot with new seeds, and a picture of each, FILM.shotN.png, to choose from"
    parser.add_argument("--versions", type=int, metavar="N", help=versions)
    modes = "ripple: later shots are made again too; keep: they stay unchanged, spliced (ripple)"
    parser.add_argument("--mode", choices=["ripple", "keep"], default="ripple", help=modes)
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Makes the retake and writes the film, or makes several versions; returns the exit code."""
    from ..render.job import Job

    set_threads(args)
    if args.versions is not None:
        return run_versions(args)
    settings, changed = retake_settings(args)
    with job_hooks(args) as (bar, hooks):
        job = Job(settings, take=changed.take, storyboard=args.preview, **hooks)
        code = run_job(job, bar, args)
    for line in retake_lines(job, changed, args.mode):
        print(line)
    return code


def run_versions(args: argparse.Namespace) -> int:
    """Makes several versions of the shot and prints how to choose one; returns the exit code."""
    from ..render.versions_job import VersionsJob

    if args.seed is not None or args.preview:
        raise ValueError(
            "--versions gives every version a seed of its own and makes the whole shot: leave --seed and --preview out"
        )
    given = given_settings(args, OUTPUT_SETTINGS)
    settings = RenderSettings.resumed(args.take, args.output, given, **unrecorded_settings(args))
    with job_hooks(args) as (bar, hooks):
        job = VersionsJob(settings, args.shot, args.versions, prompt=args.prompt, mode=args.mode, **hooks)
        for note in job.notes:
            print(f"note: {note}")
        complete = job.run()
        bar.end()
    for line in versions_lines(job, args.shot):
        print(line)
    return 0 if complete else STOPPED


def versions_lines(job: VersionsJob, number: int) -> Iterator[str]:
    """Yields a report: the versions that were made, and the commands that choose one and write the film."""
    take, folder = job.take, shlex.quote(str(job.take.folder))
    for version in job.made:
        yield f"version {version} of shot {number}: seed {take.shots[number - 1].versions[version].seed}"
    missing = len(job.versions.numbers) - len(job.made)
    if missing:
        yield f"stopped before {plural(missing, 'version')}; the same command with --versions {missing} makes the rest"
    if job.made:
        yield f"{job.sheet_path} shows them; this puts version N into the film and writes it:"
        yield f"  longlive takes choose {folder} --shot {number} --version N && longlive render --resume {folder}"


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
