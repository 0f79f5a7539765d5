"""`longlive retake` and `longlive takes`: shots made again, and what is kept of films."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ..render.settings import OUTPUT_SETTINGS, RenderSettings
from ..take import Retake, Take, choose, lock_shot, prune, retake, takes_in
from ..take.lock import TakeLock
from .render import add_output_arguments, given_settings

if TYPE_CHECKING:
    from ..render.job import Job


def retake_arguments(part: argparse.ArgumentParser) -> None:
    """Everything that `retake_settings` reads."""
    part.add_argument("take", type=Path, metavar="TAKE", help="the FILM.take of a render")
    part.add_argument("--shot", type=int, required=True, metavar="N", help="which, from 1")
    part.add_argument("--seed", type=int, help="of the shot (with no --prompt either: one it has not had)")
    part.add_argument("--prompt", metavar="TEXT", help="of the shot, as in a script (what it had)")
    modes = {"ripple": "the shots after it are made again too", "keep": "they stay, spliced behind it"}
    help_text = "; ".join(f"{name}: {text}" for name, text in modes.items())
    part.add_argument("--mode", choices=list(modes), default="ripple", help=f"{help_text} (ripple)")
    add_output_arguments(part)


def retake_settings(args: argparse.Namespace) -> tuple[RenderSettings, Retake]:
    """The settings of the film and its take with the retake. Raises ValueError and ScriptError."""
    if args.preview and args.mode == "keep":
        raise ValueError("--preview makes one block and leaves the other shots unchanged: leave --mode out")
    changed = retake(Take.load(args.take), args.shot, args.seed, args.prompt, args.mode, storyboard=args.preview)
    written = {"contact_sheet": args.contact_sheet, "decode": args.decode}
    return RenderSettings.resumed(args.take, args.output, given_settings(args, OUTPUT_SETTINGS), **written), changed


def retake_lines(job: Job, changed: Retake, mode: str) -> Iterator[str]:
    """What a retake made and what it left, and how a spliced shot joins it."""
    report, take, number = job.film.report, changed.take, changed.shot + 1
    seed = take.shots[changed.shot].versions[changed.version].seed
    yield f"shot {number} is version {changed.version}" + ("" if seed is None else f", seed {seed}")
    blocks = len(job.plan.blocks)
    yield (
        f"kept {_ranges(report.stored)}; sampled {_ranges(report.sampled)}: {len(report.sampled)} of {blocks} blocks, "
        f"{report.share_of_calls(job.settings.steps):.0%} of a whole render's model calls"
    )
    copied = job.render.copied
    yield f"the film: {copied} of {blocks} blocks copied as they were compressed, {blocks - copied} decoded"
    if mode == "keep" and number < len(take.shots) and take.complete:
        from ..render.seam import format_flicker, seam_flicker

        line = f"shot {number + 1} is spliced behind shot {number}; "
        line += format_flicker(seam_flicker(take, job.mini.vae, changed.shot))
        if changed.before.complete:
            was = seam_flicker(changed.before, job.mini.vae, changed.shot)
            line += f" (before the retake {was.seam:.1f}, {was.boundary:.1f})"
        yield line


def takes_arguments(part: argparse.ArgumentParser) -> None:
    """Everything that `takes_lines` reads."""
    kinds = part.add_subparsers(required=True, metavar="WHAT", dest="what")
    kind = kinds.add_parser("list", help="the takes in a folder")
    kind.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="FOLDER")
    for name, text in (
        ("show", "shots, versions, seeds, sizes"),
        ("choose", "put another version of a shot into the film"),
        ("lock", "keep a shot as it is when shots before it are made again"),
        ("unlock", "let it be made again"),
        ("prune", "remove the blocks of versions that are not in the film, and half-written files"),
    ):
        kind = kinds.add_parser(name, help=text)
        kind.add_argument("take", type=Path, metavar="TAKE", help="the FILM.take of a render")
        if name in ("choose", "lock", "unlock"):
            kind.add_argument("--shot", type=int, required=True, metavar="N", help="which, from 1")
        if name == "choose":
            kind.add_argument("--version", type=int, required=True, metavar="N", help="which, from 0")
        if name == "prune":
            kind.add_argument("--memory", action="store_true", help="and the memory kept at the beginning of each shot")


def takes_lines(args: argparse.Namespace) -> Iterator[str]:
    """What `longlive takes` says, doing what was asked. Raises ValueError and OSError."""
    if args.what == "list":
        yield from _list(args.folder)
        return
    take = Take.load(args.take)
    if args.what == "show":
        yield from _show(take)
        return
    with TakeLock(args.take):
        yield from _changed(Take.load(args.take), args)


def _changed(take: Take, args: argparse.Namespace) -> Iterator[str]:
    """What is done to a take that nobody else changes meanwhile, in words."""
    if args.what == "prune":
        yield f"freed {_size(prune(take, args.memory))}; {_size(take.size)} are left"
    elif args.what in ("lock", "unlock"):
        lock_shot(take, args.shot, args.what == "lock").save()
        yield f"shot {args.shot} is {args.what}ed"
    else:
        changed, notes = choose(take, args.shot, args.version)
        changed.save()
        yield f"shot {args.shot} is version {args.version}"
        yield from notes
        yield f"`longlive render --resume {args.take}` writes the film"


def _list(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    found = takes_in(folder)
    if not found:
        yield f"no takes in {folder}"
    for path in found:
        try:
            yield _line(Take.load(path))
        except ValueError as error:
            yield f"{path}: {error}"


def _show(take: Take) -> Iterator[str]:
    yield _line(take)
    yield ", ".join(f"{name} {take.settings.get(name)}" for name in ("size", "seed", "steps", "kv_format", "model"))
    for shot, blocks in groupby(take.plan.blocks, key=lambda block: block.shot):
        total, kept = len(list(blocks)), take.shots[shot]
        marks = ", locked" * kept.locked + ", spliced: made after other blocks" * kept.spliced
        yield f"shot {shot + 1}{marks}"
        for number, version in enumerate(kept.versions):
            mark = "*" if number == kept.chosen else " "
            seed = "the film's seed" if version.seed is None else f"seed {version.seed}"
            made, size = take.block_count(shot, number), _size(take.size_of(shot, number))
            yield f" {mark} version {number}: {seed}, {made} of {total} blocks, {size}, {version.made}: {version.text}"
    if paths := take.snapshot_paths():
        size = sum(path.stat().st_size for path in paths)
        yield f"memory at the beginning of shots: {len(paths)} files, {_size(size)}; `longlive takes prune --memory`"
    partial = sum(1 for _ in take.partial_files())
    if partial:
        yield f"{partial} half-written files; `longlive takes prune` removes them"


def _line(take: Take) -> str:
    plan, made = take.plan, take.block_count()
    state = "complete" if made == len(plan.blocks) else f"{made} of {len(plan.blocks)} blocks"
    return f"{take.folder}: {plan.shots} shots, {plan.seconds:.1f} s, {state}, {_size(take.size)}"


def _ranges(indices: list[int]) -> str:
    """Blocks in words: "blocks 0 to 2, 5", "no block"."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"block{'s' if len(indices) > 1 else ''} {', '.join(words)}" if words else "no block"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
