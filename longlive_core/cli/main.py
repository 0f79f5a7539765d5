"""The command line: `longlive render | retake | extend | takes | plan | convert | verify | eval | train`.

The only module that prints.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

from ..oom import OutOfMemoryError
from ..pipeline.stages import StageError, format_error
from ..sampling.generate import NotFiniteError
from ..weights.convert import ConversionStopped, ConvertProgress
from ..weights.convert_report import add_arguments as convert_arguments
from ..weights.convert_report import convert_lines, progress_line
from .console import console, stop_signals
from .extend import extend_arguments, extend_job, extend_lines
from .plan import add_arguments as plan_arguments
from .plan import plan_text
from .progress_bar import ProgressBar
from .render import add_arguments as render_arguments
from .render import how_to_go_on, how_to_resume, render_settings
from .takes import retake_arguments, retake_lines, retake_settings, takes_arguments, takes_lines

if TYPE_CHECKING:
    from ..render.job import Job

FAILED, WRONG, STOPPED = 1, 2, 130
BAD_NEWS = (ValueError, OSError, NotFiniteError, OutOfMemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 a check failed, 2 bad input, 130 stopped."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(words)
    try:
        return args.run(args, words)
    except KeyboardInterrupt:
        print("\nlonglive: stopped", file=sys.stderr)
        return STOPPED
    except (*BAD_NEWS, StageError) as error:
        # An error of our own in a stage is for us to see whole.
        if args.traceback or (isinstance(error, StageError) and not isinstance(error.__cause__, BAD_NEWS)):
            raise
        print(f"longlive: {format_error(error)}", file=sys.stderr)
        return WRONG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="longlive", description="Long films of several shots, block by block.")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    parts = parser.add_subparsers(required=True, metavar="COMMAND")
    part = parts.add_parser("render", help="turn a shot script into a film")
    render_arguments(part)
    part.set_defaults(run=_render)

    part = parts.add_parser("retake", help="make one shot of a film again")
    retake_arguments(part)
    part.set_defaults(run=_retake)

    part = parts.add_parser("extend", help="more shots behind a film that was made, or behind any video")
    extend_arguments(part)
    part.set_defaults(run=_extend)

    part = parts.add_parser("takes", help="what is kept of films: list, show, choose, prune")
    takes_arguments(part)
    part.set_defaults(run=_takes)

    part = parts.add_parser("plan", help="what a film takes of a card's memory, and what to change if it does not fit")
    plan_arguments(part)
    part.set_defaults(run=_plan)

    part = parts.add_parser("convert", help="a checkpoint in another format: bf16, fp8 or nvfp4")
    convert_arguments(part)
    part.set_defaults(run=_convert)

    part = parts.add_parser("verify", help="replay recorded runs of the reference and compare")
    part.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="files or folders (a clone's tests/golden/reference)"
    )
    part.set_defaults(run=_verify)

    part = parts.add_parser("eval", help="measure what a model remembers")
    part.add_argument("model", choices=["mini"])
    part.add_argument("--scripts", type=int, default=40, help="held-out scripts to render (40)")
    part.add_argument("--weights", type=Path, help="a folder that `train mini` made (the shipped weights)")
    part.add_argument("--formats", action="store_true", help="compare memory and weights in 16, 8 and 4 bits instead")
    part.add_argument("--out", type=Path, default=Path("output/eval"), help="folder of the table and the plots")
    part.set_defaults(run=_eval)

    part = parts.add_parser("train", help="train the embedded model anew")
    part.add_argument("model", choices=["mini"])
    part.add_argument("--seed", type=int, default=0)
    part.add_argument("--out", type=Path, default=Path("output/mini"), help="folder of weights and checkpoints")
    part.set_defaults(run=_train)
    return parser


def _render(args: argparse.Namespace, _: list[str]) -> int:
    _threads(args)
    from ..render.job import Job

    settings = render_settings(args)
    with stop_signals() as stop, console() as (bar, note):
        job = Job(settings, storyboard=args.preview, on_progress=bar.show, on_note=note, should_stop=stop)
        return _make(job, bar, args)


def _retake(args: argparse.Namespace, _: list[str]) -> int:
    _threads(args)
    from ..render.job import Job

    settings, changed = retake_settings(args)
    with stop_signals() as stop, console() as (bar, note):
        job = Job(
            settings,
            take=changed.take,
            storyboard=args.preview,
            on_progress=bar.show,
            on_note=note,
            should_stop=stop,
        )
        code = _make(job, bar, args)
    for line in retake_lines(job, changed, args.mode):
        print(line)
    return code


def _extend(args: argparse.Namespace, _: list[str]) -> int:
    from ..video.clip import ClipStopped

    _threads(args)
    with stop_signals() as stop, console() as (bar, note):
        try:
            job, shot = extend_job(args, on_progress=bar.show, on_note=note, should_stop=stop)
        except ClipStopped:
            bar.end()
            print("longlive: stopped; nothing was written", file=sys.stderr)
            return STOPPED
        bar.end()
        code = _make(job, bar, args)
    for line in extend_lines(job, shot):
        print(line)
    return code


def _make(job: Job, bar: ProgressBar, args: argparse.Namespace) -> int:
    """Makes the film and tells how it went."""
    plan = job.plan
    for note in job.notes:
        print(f"note: {note}")
    print(f"{plan.shots} shots, {len(plan.blocks)} blocks, {plan.seconds:.1f} s at {plan.fps:g} fps", flush=True)
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
            print(how_to_go_on(args, job))
        return 0
    print(job.status)
    print(how_to_resume(args, job))
    return STOPPED


def _takes(args: argparse.Namespace, _: list[str]) -> int:
    for line in takes_lines(args):
        print(line)
    return 0


def _threads(args: argparse.Namespace) -> None:
    if args.threads is None:
        return
    if args.threads < 1:
        raise ValueError(f"--threads {args.threads} must be at least 1")
    torch.set_num_threads(args.threads)


def _plan(args: argparse.Namespace, _: list[str]) -> int:
    print(plan_text(args))
    return 0


def _convert(args: argparse.Namespace, _: list[str]) -> int:
    def show(progress: ConvertProgress) -> None:
        if sys.stderr.isatty():
            print(f"\r{progress_line(progress):79.79}", end="", file=sys.stderr, flush=True)

    try:
        with stop_signals() as stop:
            lines = list(convert_lines(args, show, stop))
    except ConversionStopped:
        print("longlive: stopped; nothing was written", file=sys.stderr)
        return STOPPED
    finally:
        if sys.stderr.isatty():
            print(file=sys.stderr)
    for line in lines:
        print(line)
    return 0


def _verify(args: argparse.Namespace, _: list[str]) -> int:
    from ..evaluation.recorded import recorded_files
    from ..evaluation.verify import verify_file

    files = recorded_files(args.files)
    width = max(4, *(len(path.name) for path in files))
    print(f"{'file':{width}}  {'output':>8}  {'worst call':>10}  attended  verdict")
    counts = {"ok": 0, "failed": 0, "skipped": 0}
    for path in files:
        result = verify_file(path)
        counts[result.verdict] += 1
        attended = {None: "-", True: "agree", False: "DIFFER"}[result.attended]
        output, call = _figure(result.output_error), _figure(result.call_error)
        note = f": {result.note}" if result.note else ""
        print(f"{result.name:{width}}  {output:>8}  {call:>10}  {attended:8}  {result.verdict}{note}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return FAILED if counts["failed"] else 0


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _eval(args: argparse.Namespace, _: list[str]) -> int:
    from ..evaluation.formats import evaluate_formats, format_table
    from ..evaluation.mini import evaluate_mini
    from ..evaluation.table import markdown, write_formats, write_report
    from ..mini import load_mini

    if args.scripts < 1:
        raise ValueError(f"--scripts {args.scripts} must be at least 1; 40 gives figures that can be compared")
    mini = load_mini(args.weights)
    if args.formats:
        rows = evaluate_formats(mini, scripts=args.scripts, log=_say)
        print(format_table(rows))
        print(f"wrote {write_formats(rows, args.out)}")
        return 0
    report = evaluate_mini(mini, scripts=args.scripts, log=_say)
    print(markdown(report))
    for path in write_report(report, args.out):
        print(f"wrote {path}")
    return 0


def _train(args: argparse.Namespace, _: list[str]) -> int:
    from ..training.mini import train_mini

    train_mini(args.out, args.seed, _say)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def program() -> NoReturn:
    """The console script. Every file is closed when `main` returns, so taking the interpreter and torch apart, which
    can take seconds, is left out: Ctrl-C should end at once."""
    try:
        code = main()
    except SystemExit as ended:  # argparse: help, or words it does not know
        code = ended.code if isinstance(ended.code, int) else WRONG
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
