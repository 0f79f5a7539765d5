"""`longlive cover`: several versions of one shot from one memory of the film before it, and the one to use."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..render.settings import OUTPUT_SETTINGS, RenderSettings
from ..take import Take, choose
from ..units import plural
from .arguments import add_output_arguments, given_settings, unrecorded_settings
from .console import STOPPED, job_hooks
from .run_job import run_job, set_threads

if TYPE_CHECKING:
    from ..render.rank_versions import VersionScore
    from ..render.versions_job import VersionsJob

TAKES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("take", type=Path, metavar="TAKE", help="the FILM.take of a render")
    parser.add_argument("--shot", type=int, required=True, metavar="N", help="number of the shot, from 1")
    takes = f"versions to make, with new seeds, and a picture of each, FILM.shotN.png ({TAKES})"
    parser.add_argument("--takes", type=int, metavar="N", help=takes)
    rank = "order them by continuity with the film, which has to be complete: the worst measure of `longlive check`; "
    rank += "then the worst one but for cuts, so that a cut that all of them miss leaves an order; then the mean"
    parser.add_argument("--rank", action="store_true", help=rank)
    parser.add_argument("--choose", type=int, metavar="V", help="put version V into the film and write it")
    parser.add_argument("--prompt", metavar="TEXT", help="text of the versions, as in a script (the shot's own)")
    modes = "when one is chosen, ripple: later shots are made again too; keep: they stay unchanged, spliced (ripple)"
    parser.add_argument("--mode", choices=["ripple", "keep"], default="ripple", help=modes)
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Makes versions and prints how to choose one, or chooses one and writes the film; returns the exit code."""
    set_threads(args)
    if args.preview:
        raise ValueError("cover makes whole shots: leave --preview out")
    if args.choose is None:
        return _make(args)
    if args.takes is not None or args.rank or args.prompt is not None or args.mode != "ripple":
        raise ValueError("--choose takes a version as it was made: leave --takes, --rank, --prompt and --mode out")
    return _choose(args)


def _settings(args: argparse.Namespace) -> RenderSettings:
    given = given_settings(args, OUTPUT_SETTINGS)
    return RenderSettings.resumed(args.take, args.output, given, **unrecorded_settings(args))


def _choose(args: argparse.Namespace) -> int:
    from ..render.job import Job

    changed, notes = choose(Take.load(args.take), args.shot, args.choose)
    with job_hooks(args) as (bar, hooks):
        job = Job(_settings(args), take=changed, **hooks)
        for line in (f"shot {args.shot} is version {args.choose}", *notes):
            print(line)
        return run_job(job, bar, args)


def _make(args: argparse.Namespace) -> int:
    from ..film.shot_versions import ShotVersions
    from ..render.rank_versions import FilmScores
    from ..render.versions_job import VersionsJob

    count, take = TAKES if args.takes is None else args.takes, Take.load(args.take)
    ShotVersions(take, args.shot, count, prompt=args.prompt, mode=args.mode)  # refuses before the film is read
    # Before any work, because it needs the whole film.
    film = FilmScores.of(take) if args.rank else None
    with job_hooks(args) as (bar, hooks):
        job = VersionsJob(_settings(args), args.shot, count, prompt=args.prompt, mode=args.mode, **hooks)
        for note in job.notes:
            print(f"note: {note}")
        complete = job.run()
        scores = None
        if film is not None and complete:  # whoever stops does not wait for versions to be decoded once more
            scores = film.of_versions(job.take, job.vae, job.versions.index, job.made)
            job.save_sheet(scores)
        bar.end()
    for line in _lines(job, args.shot, scores):
        print(line)
    return 0 if complete else STOPPED


def _lines(job: VersionsJob, number: int, scores: Mapping[int, VersionScore] | None) -> Iterator[str]:
    """Yields a report: the versions that were made, the best one first, and the command that chooses one."""
    take, folder = job.take, shlex.quote(str(job.take.folder))
    versions = take.shots[number - 1].versions
    for version in job.made if scores is None else scores:
        seed = f"version {version} of shot {number}: seed {versions[version].seed}"
        yield seed if scores is None else f"{seed}, continuity {scores[version].text}"
    missing = len(job.versions.numbers) - len(job.made)
    if missing:
        yield f"stopped before {plural(missing, 'version')}; the same command with --takes {missing} makes the rest"
    if job.made:
        yield f"{job.sheet_path} shows them; this puts version V into the film and writes it:"
        yield f"  longlive cover {folder} --shot {number} --choose V"
