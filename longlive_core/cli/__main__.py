"""The program: `longlive`, or `python -m longlive.longlive_core.cli`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from .console import BAD_INPUT
from .main import main as run_command


def main() -> NoReturn:
    """Runs the command, then ends the process without shutting down the interpreter and torch.

    Their shutdown can take seconds, also after Ctrl-C. Nothing is lost, because the command has closed all files.
    """
    try:
        code = run_command()
    except SystemExit as ended:  # argparse: help, or unknown arguments
        code = ended.code if isinstance(ended.code, int) else BAD_INPUT
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
