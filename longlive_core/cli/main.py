"""The command line: the parser of all commands, and the exit codes of their errors.

Only this folder prints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..oom import OutOfMemoryError
from ..parallel import RankError
from ..pipeline.stages import StageError, format_error
from ..sampling.generate import NotFiniteError
from . import cast, check, convert, cover, evaluate, extend, plan, render, retake, script, takes, train, verify, work
from .console import BAD_INPUT, STOPPED
from .ranks import run_on_ranks

# Errors that the user can remedy; any other error is a fault of ours and shows its traceback.
USER_ERRORS = (ValueError, OSError, NotFiniteError, OutOfMemoryError, RankError)


# Name, line of help and module of each command; a module has `add_arguments(parser)` and `run(args)`.
COMMANDS = (
    ("render", "render a shot script as a film", render),
    ("script", "show how a shot script is read, with notes and warnings", script),
    ("retake", "make one shot of a film again", retake),
    ("cover", "make several versions of a shot of a film from one memory, and use one of them", cover),
    ("extend", "add shots to the end of a film or of any video", extend),
    ("work", "make the unfinished films of a folder, on any number of machines that share it", work),
    ("takes", "list, show, edit, export and prune takes: the stored settings and shot versions of films", takes),
    ("cast", "save a block of a film as a file, which other films recall, and show such files", cast),
    ("plan", "estimate the VRAM that a film needs, and suggest changes if it does not fit", plan),
    ("convert", "convert a checkpoint to bf16, fp8 or nvfp4", convert),
    ("verify", "replay recorded runs of the official implementation and compare the results", verify),
    ("eval", "measure how well a model keeps identities over shots", evaluate),
    ("check", "report where shots of a film differ in what should stay, and make the worst ones again", check),
    ("train", "train LongLive Mini from scratch, train a model further, or distil it into a LoRA", train),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 a check failed, 2 bad input, 130 stopped."""
    args = _parser().parse_args(argv)
    try:
        return run_on_ranks(args.run, args)
    except KeyboardInterrupt:
        print("\nlonglive: stopped", file=sys.stderr)
        return STOPPED
    except (*USER_ERRORS, StageError) as error:
        if args.traceback or (isinstance(error, StageError) and not isinstance(error.__cause__, USER_ERRORS)):
            raise
        print(f"longlive: {format_error(error)}", file=sys.stderr)
        return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="longlive", description="Makes long films of several shots, block by block.")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text, module in COMMANDS:
        subparser = commands.add_parser(name, help=text)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser
