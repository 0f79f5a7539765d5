"""`longlive work`: makes the unfinished films of a folder, together with other processes and machines that do so."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.stages import format_error
from ..take.lock import TakeLock
from ..units import plural
from .arguments import add_file_arguments, add_setting_arguments, given_settings, unrecorded_settings
from .console import CHECK_FAILED, STOPPED, job_hooks
from .progress_bar import ProgressBar
from .run_job import set_threads

if TYPE_CHECKING:
    from ..render.work import WorkFolder

POLL_SECONDS, TICK_SECONDS = 2.0, 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    folder = "scripts NAME.txt, of which films NAME.mp4 are made, and takes of films that were begun"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=folder)
    parser.add_argument("--watch", action="store_true", help="wait for new scripts and takes until Ctrl-C")
    add_file_arguments(parser)
    add_setting_arguments(parser)
    parser.set_defaults(output=None)


def run(args: argparse.Namespace) -> int:
    """Makes films until none is unfinished; returns the exit code."""
    from ..render.work import WorkFolder

    set_threads(args)
    work = WorkFolder(args.folder, given_settings(args), unrecorded_settings(args))
    work.check()
    worker = Worker(work)
    with job_hooks(args) as (bar, hooks):
        worker.run(bar, hooks, watch=args.watch)
    for line in worker.summary():
        print(line)
    return STOPPED if worker.stopped else CHECK_FAILED if work.failed or work.left else 0


class Worker:
    """Makes films, one after the other, and prints a line for each. `stopped`: by the user, with films left."""

    def __init__(self, work: WorkFolder) -> None:
        self._work, self._made, self.stopped = work, 0, False
        self._unhelped = set[Path]()

    def run(self, bar: ProgressBar, hooks: dict[str, Any], *, watch: bool) -> None:
        """Makes the films that no other process makes, and waits for those of the others, which may end."""
        should_stop: Callable[[], bool] = hooks["should_stop"]
        waited_for = 0
        while not self.stopped:
            tried, held = 0, 0
            for take in self._work.unfinished():
                self.stopped = self.stopped or should_stop()
                if self.stopped:
                    return
                tried_now = self._try(take, bar, hooks)
                tried, held = tried + tried_now, held + (not tried_now)
            if not (tried or held or watch):
                return
            if not tried:
                if held != waited_for and held:
                    print(f"waiting for {plural(held, 'film')} of other processes", flush=True)
                waited_for = held
                self.stopped = _waited(should_stop)

    def summary(self) -> list[str]:
        """Lines on what was made, and what was not and why."""
        work = self._work
        lines = [f"{take.with_suffix('')}: {reason}" for take, reason in sorted({**work.failed, **work.left}.items())]
        count = f"{work.folder}: {plural(self._made, 'film')} made here"
        if self.stopped:
            count += "; stopped: the same command makes the rest"
        return [f"{count}, {len(lines)} not made:" if lines else count, *(f"  {line}" for line in lines)]

    def _try(self, take: Path, bar: ProgressBar, hooks: dict[str, Any]) -> bool:
        """Makes a film unless another process does; returns whether it was tried."""
        try:
            lock = self._work.claim(take)
            if lock is None:
                return self._help(take, hooks["should_stop"])
            with lock:
                self._make(take, lock, bar, hooks)
        except OSError as error:  # the folder of the take cannot be made or read
            self._report(take, error)
        return True

    def _help(self, take: Path, should_stop: Callable[[], bool]) -> bool:
        """Samples independent shots of a film that another process makes; returns whether there were any."""
        shots = None if take in self._unhelped else self._work.claim_shots(take)
        if shots is None:
            return False
        with shots.lock:
            try:
                complete = self._work.sample(shots, should_stop)
            except Exception as error:  # the process that makes the film comes to these shots, too
                self._unhelped.add(take)
                print(f"longlive: {take.with_suffix('')}, for another process: {format_error(error)}", file=sys.stderr)
                return False
        if complete:
            numbers = " and ".join(str(shot + 1) for shot in sorted({spec.shot for spec in shots.run}))
            print(f"{take.with_suffix('')}: sampled shot {numbers} for another process", flush=True)
        elif should_stop():
            self.stopped = True
        else:  # the beginning of the film, which they depend on, has changed meanwhile
            self._unhelped.add(take)
        return True

    def _make(self, take: Path, lock: TakeLock, bar: ProgressBar, hooks: dict[str, Any]) -> None:
        try:
            job = self._work.job(take, lock, **hooks)
            for note in job.notes:
                print(f"note: {take.stem}: {note}")
            complete = job.run()
        except Exception as error:  # the other films are made nevertheless
            bar.end()
            self._report(take, error)
            return
        bar.end()
        if not complete:
            self.stopped = True
            print(job.status, flush=True)
            return
        self._work.settle(take)
        self._made += 1
        seconds = f"{job.plan.seconds:.1f} s, made at {bar.pace:.0f} frames per second"
        print(f"{job.output_settings.output}: {seconds}", flush=True)

    def _report(self, take: Path, error: Exception) -> None:
        self._work.fail(take, error)
        print(f"longlive: {take.with_suffix('')}: {format_error(error)}", file=sys.stderr, flush=True)


def _waited(should_stop: Callable[[], bool]) -> bool:
    """Waits a little; returns early, and true, if the user stops."""
    until = time.monotonic() + POLL_SECONDS
    while time.monotonic() < until:
        if should_stop():
            return True
        time.sleep(TICK_SECONDS)
    return False
