"""A hundred films of LongLive Mini by three `longlive work` that are killed at random: what is made, lost, made twice.

    python tests/benchmarks/bench_work.py [--films 100] [--workers 3] [--kills 30] [--blocks 1] [--seed 0]

Films have one block of 32x32 pixels. A worker is killed (SIGKILL) when a few more blocks are stored, after a random
pause, and another one is started at once; at the end all that run are waited for. The lines are: films that are whole;
blocks stored, of those that are needed, and the most often that one of them was stored; blocks that were begun, of
which a kill loses one at most; take-overs of a claim; films whose latents and file equal, to the bit, those made alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from longlive.longlive_core.cli.main import main as run_command
from longlive.longlive_core.film import film_run, take_store
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.render.film_index import is_whole
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take, lock
from longlive.longlive_core.take.history import read_blocks

SIZE, LOG = "32x32", "log"
PAUSE_SECONDS = 0.2


def work(folder: Path) -> int:
    """A worker: the command itself, which also notes what it does in a file that all workers append to."""
    log = os.open(folder / LOG, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    sample, save, claim = film_run.FilmRun._sample, take_store.save_block, lock._claim

    def note(*words: object) -> None:
        os.write(log, " ".join([*map(str, words), "\n"]).encode())

    def noted_sample(run: film_run.FilmRun, index: int) -> object:
        note("begun", index)
        return sample(run, index)

    def noted_save(path: Path, *rest: object) -> str:
        digest = save(path, *rest)  # type: ignore[arg-type]
        note("stored", path.relative_to(folder))
        return digest

    def noted_claim(take: Path) -> tuple[Path, str]:
        claimed = claim(take)
        note("claimed" if claimed[0].suffix == ".1" else "taken-over", take.name)
        return claimed

    film_run.FilmRun._sample = noted_sample  # type: ignore[assignment,method-assign]
    take_store.save_block, lock._claim = noted_save, noted_claim  # type: ignore[assignment]
    return run_command(["work", str(folder), "--size", SIZE, "--threads", "1"])


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--worker", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def notes(folder: Path) -> Counter[str]:
    """How often each line of the workers was written."""
    path = folder / LOG
    return Counter(line.strip() for line in path.read_text().splitlines()) if path.exists() else Counter()


def count(lines: Counter[str], word: str) -> int:
    return sum(times for line, times in lines.items() if line.startswith(word))


def kill_at_random(folder: Path, args: argparse.Namespace) -> tuple[int, list[int]]:
    """Runs the workers until all films are made; returns the number of kills and the exit codes of those that ended."""
    rng, kills, total = random.Random(args.seed), 0, args.films * args.blocks
    running = [start(folder) for _ in range(args.workers)]
    while kills < args.kills and count(notes(folder), "stored") < total:
        until = count(notes(folder), "stored") + rng.randint(0, max(1, 2 * total // args.kills))
        while count(notes(folder), "stored") < min(until, total) and any(one.poll() is None for one in running):
            time.sleep(0.01)
        time.sleep(rng.random() * PAUSE_SECONDS)
        at = rng.randrange(args.workers)
        if running[at].poll() is None:
            running[at].send_signal(signal.SIGKILL)
            running[at].wait()
            kills += 1
        running[at] = start(folder)
    return kills, [one.wait() for one in running]


def equal_films(folder: Path, names: list[str], alone: Path) -> int:
    """How many films equal, in latents and file, those that this process makes one after the other."""
    mini, equal = load_mini(), 0
    for name in names:
        job = Job(RenderSettings(folder / f"{name}.txt", alone / f"{name}.mp4", size=SIZE), mini=mini)
        if not job.run() or job.take is None:
            raise SystemExit(f"{name} was stopped")
        take = Take.load(folder / f"{name}.take")
        pairs = zip(read_blocks(take), read_blocks(job.take), strict=True)
        same = all(torch.equal(mine[0].latents, other[0].latents) for mine, other in pairs)
        equal += same and take.film.read_bytes() == job.take.film.read_bytes()
    return equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=100)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--blocks", type=int, default=1, help="blocks of a film")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        os._exit(work(args.worker))
    torch.set_num_threads(1)
    with TemporaryDirectory() as temporary:
        folder, alone = Path(temporary, "films"), Path(temporary, "alone")
        folder.mkdir()
        alone.mkdir()
        names = [f"film {number:03}" for number in range(1, args.films + 1)]
        for number, name in enumerate(names, 1):
            (folder / f"{name}.txt").write_text(f"Shot 1 ({args.blocks} blocks): a big red ring @seed={number}\n")
        began = time.monotonic()
        kills, codes = kill_at_random(folder, args)
        seconds, lines = time.monotonic() - began, notes(folder)
        stored = {line: times for line, times in lines.items() if line.startswith("stored")}
        whole = sum(is_whole(Take.load(folder / f"{name}.take")) for name in names)
        print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; {seconds:.0f} s, exit {codes}")
        print(f"films whole: {whole} of {args.films}")
        needed = args.films * args.blocks
        print(f"blocks stored: {sum(stored.values())} of {needed}, each at most {max(stored.values())} times")
        print(f"blocks begun: {count(lines, 'begun')}; kills: {kills}; claims taken over: {count(lines, 'taken-over')}")
        print(
            f"claims left: {len(list(folder.rglob('in_use*')))}, partial files: {len(list(folder.rglob('*.partial')))}"
        )
        print(f"equal to the bit: {equal_films(folder, names, alone)} of {args.films}", flush=True)


if __name__ == "__main__":
    main()
