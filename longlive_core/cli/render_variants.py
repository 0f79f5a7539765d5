"""`longlive render --variants`: several films of one script whose seeds follow one another."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from ..render.settings import RenderSettings
from ..render.variant_settings import resumed_variants, variants_of
from .arguments import given_settings, unrecorded_settings
from .console import job_hooks
from .run_job import device_arguments, run_job

if TYPE_CHECKING:
    from ..render.variants import Variants


def variants_settings(args: argparse.Namespace, settings: RenderSettings) -> list[RenderSettings]:
    """The settings of the films. settings: of a single film of these arguments.

    Raises ValueError for options that do not go together, and as `variants_of` and `resumed_variants`.
    """
    if args.one_film_a_line:
        raise ValueError("--variants makes films of one script and --one-film-a-line of several; leave one of them out")
    if args.resume is None:
        return variants_of(settings, args.variants)
    if args.script is not None or args.output is not None:
        raise ValueError("--variants continues films with --resume as they were begun: leave SCRIPT and -o out")
    return resumed_variants(args.resume, args.variants, given_settings(args), **unrecorded_settings(args))


def run_variants(args: argparse.Namespace, films: list[RenderSettings]) -> int:
    """Makes the films; returns the exit code."""
    from ..render.variants import Variants

    with job_hooks(args) as (bar, hooks), Variants(films, storyboard=args.preview, **hooks) as variants:
        for note in variants.notes:
            print(f"note: {note}")
        for job in variants.jobs:
            print(f"{job.output_settings.output}: seed {job.settings.seed}", flush=True)
            if code := run_job(job, bar, args):
                if len(films) > 1 and films[0].take:
                    print(f"this makes the rest of all {len(films)} films:\n  {_resume_command(args, variants)}")
                return code
    return 0


def _resume_command(args: argparse.Namespace, variants: Variants) -> str:
    take = variants.jobs[0].take
    assert take is not None  # the films have takes
    command = ["longlive", "render", "--resume", str(take.folder), "--variants", str(len(variants.jobs))]
    return shlex.join([*command, *(["--preview"] if args.preview else []), *device_arguments(args)])
