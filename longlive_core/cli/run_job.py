"""Runs a job of `render`, `retake` or `extend` and prints its result and the next command."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

import torch

from ..render.settings import OUTPUT_SETTINGS
from ..take import Take
from ..units import plural
from .console import STOPPED
from .progress_bar import ProgressBar

if TYPE_CHECKING:
    from ..render.job import Job


def set_threads(args: argparse.Namespace) -> None:
    """Sets the number of CPU threads from `--threads`. Raises ValueError."""
    if args.threads is None:
        return
    if args.threads < 1:
        raise ValueError(f"--threads {args.threads} must be at least 1")
    torch.set_num_threads(args.threads)


def run_job(job: Job, bar: ProgressBar, args: argparse.Namespace) -> int:
    """Makes the film and prints the result; returns the exit code."""
    plan = job.plan
    for note in job.notes:
        print(f"note: {note}")
    counts = f"{plural(plan.shots, 'shot')}, {plural(len(plan.blocks), 'block')}"
    print(f"{counts}, {plan.seconds:.1f} s at {plan.fps:g} fps", flush=True)
    try:
        complete = job.run()
    except BaseException:
        bar.end()
        print(job.status, file=sys.stderr)
        raise
    bar.end()
    if complete:
        print(f"{job.output_settings.output}: {plan.seconds:.1f} s, made at {bar.pace:.0f} frames per second")
        if args.preview:
            print(how_to_continue(args, job))
        return 0
    print(job.status)
    print(how_to_resume(args, job))
    return STOPPED


def how_to_resume(args: argparse.Namespace, job: Job) -> str:
    """Returns the command that makes the rest of a film that was stopped."""
    if job.take is None:
        return "stopped; a render without --no-take can be resumed"
    return f"stopped; this makes the rest:\n  {_resume_command(args, job, job.take, preview=args.preview)}"


def how_to_continue(args: argparse.Namespace, job: Job) -> str:
    """Returns the commands that follow a preview: for the film, and for another first block of a shot."""
    if job.take is None:
        return ""
    retake = shlex.join(["longlive", "retake", str(job.take.folder)])
    return (
        f"{job.sheet_path} shows it; this makes the film whose shots begin with these blocks:\n"
        f"  {_resume_command(args, job, job.take, preview=False)}\n"
        f"and this another first block of shot N:\n  {retake} --shot N --preview"
    )


def _resume_command(args: argparse.Namespace, job: Job, take: Take, *, preview: bool) -> str:
    command = ["longlive", "render", "--resume", str(take.folder)]
    if preview:
        command.append("--preview")
    if job.settings.output != take.film:
        command += ["-o", str(job.settings.output)]
    for name in OUTPUT_SETTINGS:
        if getattr(job.settings, name) != take.output.get(name):
            command += [f"--{name}", getattr(job.settings, name)]
    if args.contact_sheet:
        command.append("--contact-sheet")
    if args.decode != "async":
        command += ["--decode", args.decode]
    command += device_arguments(args)
    if args.cuda_graphs:
        command.append("--cuda-graphs")
    if args.threads is not None:
        command += ["--threads", str(args.threads)]
    return shlex.join(command)


def device_arguments(args: argparse.Namespace) -> list[str]:
    """The arguments that say which devices make the film."""
    given = {"--gpus": args.gpus, "--decode-gpu": args.decode_gpu}
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return [*words, *(["--split-guidance"] if args.split_guidance else [])]
