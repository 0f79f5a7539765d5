"""Several versions of a shot by `longlive cover` against as many retakes, on LongLive Mini: time and equality.

    python tests/benchmarks/bench_cover.py [--takes 4] [--shots 5] [--shot 4] [--blocks 3] [--steps 4] [--threads 1]

A film is rendered, and each arm begins with a copy of it and of its take. cover: all versions of the shot from one
memory of the film before it, with a picture of each. choose: then the film with one of them and its later shots. keep:
a retake for each seed, which makes the shot alone and writes the film. ripple: a retake for each seed, which makes the
later shots, too. The model is loaded in each. Nothing is timed unless each version is, bit for bit, the shot of the
retake with its seed, and the film with the last one chosen that of a straight render.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
package = ModuleType("longlive")
package.__path__ = [str(ROOT)]
sys.modules.setdefault("longlive", package)

import torch  # noqa: E402
from longlive.longlive_core.render.job import Job, RenderSettings  # noqa: E402
from longlive.longlive_core.render.versions_job import VersionsJob  # noqa: E402
from longlive.longlive_core.take import Take, choose, retake  # noqa: E402
from longlive.longlive_core.take.history import read_blocks  # noqa: E402
from longlive.longlive_core.take.retake import Mode  # noqa: E402
from torch import Tensor  # noqa: E402

CAPTION = "a big red ring sways on the left in front of a striped navy wall"
MODES: tuple[Mode, ...] = ("keep", "ripple")


class Timed:
    """Adds up seconds and CPU seconds of the work within it."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._began = perf_counter(), process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += perf_counter() - self._began[0]
        self.cpu += process_time() - self._began[1]


def script(args: argparse.Namespace, seed: int | None = None) -> str:
    """The film, with a seed for the shot that is made again."""
    words = {args.shot: "" if seed is None else f" @seed={seed}"}
    shots = range(1, args.shots + 1)
    return "".join(f"Shot {shot} ({args.blocks} blocks): {CAPTION}{words.get(shot, '')}\n" for shot in shots)


def rendered(folder: Path, args: argparse.Namespace, seed: int | None = None) -> Take:
    """The take of a straight render."""
    folder.mkdir()
    (folder / "film.txt").write_text(script(args, seed))
    job = Job(RenderSettings(folder / "film.txt", folder / "film.mp4", steps=args.steps, contact_sheet=False))
    assert job.run() and job.take is not None
    return job.take


def copied(take: Take, folder: Path) -> Take:
    """A film with its take in another folder."""
    shutil.copytree(take.folder.parent, folder)
    return Take.load(folder / take.folder.name)


def latents(take: Take) -> list[Tensor]:
    """The blocks of the film as chosen."""
    return [block.latents for block, _ in read_blocks(take)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether blocks are equal, bit for bit."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def made_again(take: Take, args: argparse.Namespace, seed: int, mode: Mode, timed: Timed) -> Take:
    """The take after a retake that writes the film."""
    with timed:
        changed = retake(take, args.shot, seed, None, mode)
        job = Job(RenderSettings.resumed(take.folder), take=changed.take)
        assert job.run() and job.take is not None
    return job.take


def measure(film: Take, folder: Path, args: argparse.Namespace) -> dict[str, Timed]:
    """The arms. Exits if a version or a film differs."""
    arms = {name: Timed() for name in ("cover", "choose", *MODES)}
    take = copied(film, folder / "cover")
    with arms["cover"]:
        job = VersionsJob(RenderSettings.resumed(take.folder), args.shot, args.takes)
        assert job.run()
    print(*job.notes, sep="\n")
    shot = job.take.shots[args.shot - 1]
    own = job.take.plan.blocks_of_shots[args.shot - 1]
    for version in job.made:
        seed, chosen = shot.versions[version].seed, choose(job.take, args.shot, version)[0]
        assert seed is not None
        mine = latents(chosen)[own[0].index : own[-1].index + 1]
        for mode in MODES:
            again = made_again(copied(film, folder / f"{mode}{version}"), args, seed, mode, arms[mode])
            if not same(mine, latents(again)[own[0].index : own[-1].index + 1]):
                raise SystemExit(f"version {version} differs from a retake ({mode}) with seed {seed}: nothing is timed")
    with arms["choose"]:
        choose(Take.load(take.folder), args.shot, job.made[-1])[0].save()
        assert Job(RenderSettings.resumed(take.folder)).run()
    straight = rendered(folder / "straight", args, shot.versions[job.made[-1]].seed)
    if not same(latents(Take.load(take.folder)), latents(straight)):
        raise SystemExit("the film with a chosen version differs from a straight render: nothing is timed")
    print(f"equal to the bit: {len(job.made)} versions and retakes, the film with version {job.made[-1]} and a render")
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--takes", type=int, default=4)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--shot", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=3, help="in each shot")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, torch "
        f"{torch.__version__}; {args.takes} versions of shot {args.shot} of {args.shots}, {args.blocks} blocks each, "
        f"{args.steps} steps"
    )
    with tempfile.TemporaryDirectory() as folder:
        film = rendered(Path(folder) / "film", args)
        arms = measure(film, Path(folder), args)
    for name, timed in arms.items():
        print(f"{name:<7} {timed.seconds:7.2f} s, {timed.cpu:7.2f} s of CPU time")
    seconds, cpu = (sum(getattr(arms[name], what) for name in ("cover", "choose")) for what in ("seconds", "cpu"))
    for mode in MODES:
        print(f"{mode} / (cover + choose) = {arms[mode].seconds / seconds:.2f}, CPU {arms[mode].cpu / cpu:.2f}")


if __name__ == "__main__":
    main()
