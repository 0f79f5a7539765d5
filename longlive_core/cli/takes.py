"""`longlive takes`: lists, shows and exports takes, chooses and locks versions, and removes unused blocks."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ..take import Take, choose, lock_shot, prune, takes_in
from ..take.block_file import write_text
from ..take.lock import TakeLock
from ..take.take import bytes_in
from ..units import format_bytes, plural


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands and their arguments."""
    subcommands = parser.add_subparsers(required=True, metavar="WHAT", dest="what")
    subcommand = subcommands.add_parser("list", help="list the takes in a folder")
    subcommand.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="FOLDER")
    for name, text in (
        ("show", "show shots, versions, seeds and sizes"),
        ("choose", "use another version of a shot in the film"),
        ("lock", "leave a shot unchanged when an earlier shot is retaken"),
        ("unlock", "undo lock"),
        ("export", "write the edit as an OpenTimelineIO file for editing programs, with versions as alternates"),
        ("prune", "remove the blocks of versions that are not in the film, and partial files"),
    ):
        subcommand = subcommands.add_parser(name, help=text)
        subcommand.add_argument("take", type=Path, metavar="TAKE", help="the FILM.take of a render")
        if name in ("choose", "lock", "unlock"):
            subcommand.add_argument("--shot", type=int, required=True, metavar="N", help="number of the shot, from 1")
        if name == "choose":
            subcommand.add_argument("--version", type=int, required=True, metavar="N", help="number, from 0")
        if name == "export":
            file = "the file to write (FILM.otio beside the film); paths in it are relative to it"
            subcommand.add_argument("--otio", type=Path, metavar="FILM.otio", help=file)
            subcommand.add_argument("--film", type=Path, metavar="FILM.mp4", help="the film's file, if it is elsewhere")
        if name == "prune":
            subcommand.add_argument("--memory", action="store_true", help="also remove the snapshots of the KV cache")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand and prints its report; returns the exit code."""
    for line in takes_lines(args):
        print(line)
    return 0


def takes_lines(args: argparse.Namespace) -> Iterator[str]:
    """Runs the subcommand and yields the lines of its report. Raises ValueError and OSError."""
    if args.what == "list":
        yield from _list(args.folder)
        return
    take = Take.load(args.take)
    if args.what == "show":
        yield from _show(take)
        return
    if args.what == "export":
        yield from _export(take, args)
        return
    with TakeLock(args.take):
        yield from _change(Take.load(args.take), args)


def _change(take: Take, args: argparse.Namespace) -> Iterator[str]:
    """Changes a take whose lock this process has, and yields the lines of the report."""
    if args.what == "prune":
        yield f"freed {format_bytes(prune(take, args.memory))}; the take has {format_bytes(bytes_in(take.folder))} now"
    elif args.what in ("lock", "unlock"):
        lock_shot(take, args.shot, args.what == "lock").save()
        yield f"shot {args.shot} is {args.what}ed"
    else:
        changed, notes = choose(take, args.shot, args.version)
        changed.save()
        yield f"shot {args.shot} is version {args.version}"
        yield from notes
        yield f"`longlive render --resume {args.take}` writes the film"


def _export(take: Take, args: argparse.Namespace) -> Iterator[str]:
    from ..render.timeline import timeline_of

    film: Path = args.film or take.film
    target: Path = args.otio or film.with_suffix(".otio")
    if target.suffix != ".otio":
        raise ValueError(f"{target} does not end with .otio, by which editing programs recognise a timeline")
    text = timeline_of(take, film, target.parent)
    write_text(target, text)
    others = sum(len(shot.versions) - 1 for shot in take.shots)
    yield f"{target}: {plural(len(take.shots), 'clip')} of {film}, {plural(others, 'alternate')}"


def _list(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    takes = takes_in(folder)
    if not takes:
        yield f"no takes in {folder}"
    for path in takes:
        try:
            yield _summary(Take.load(path))
        except ValueError as error:
            yield f"{path}: {error}"


def _show(take: Take) -> Iterator[str]:
    yield _summary(take)
    yield ", ".join(f"{name} {take.settings.get(name)}" for name in ("size", "seed", "steps", "kv_format", "model"))
    for index, (shot, blocks) in enumerate(zip(take.shots, take.plan.blocks_of_shots, strict=True)):
        total = len(blocks)
        marks = ", locked" * shot.locked + ", spliced: made after other blocks" * shot.spliced
        yield f"shot {index + 1}{marks}"
        for number, version in enumerate(shot.versions):
            mark = "*" if number == shot.chosen else " "
            seed = "the film's seed" if version.seed is None else f"seed {version.seed}"
            count = f"{take.block_count(index, number)} of {plural(total, 'block')}"
            size = format_bytes(bytes_in(take.shot_folder(index, number)))
            yield f" {mark} version {number}: {seed}, {count}, {size}, {version.made}: {version.text}"
    if paths := take.snapshot_paths():
        size = format_bytes(sum(path.stat().st_size for path in paths))
        files = plural(len(paths), "file")
        yield f"snapshots of the KV cache before shots: {files}, {size}; `longlive takes prune --memory`"
    if count := sum(1 for _ in take.partial_files()):
        yield f"{plural(count, 'partial file')}; `longlive takes prune` removes them"


def _summary(take: Take) -> str:
    plan, count = take.plan, take.block_count()
    state = "complete" if count == len(plan.blocks) else f"{count} of {plural(len(plan.blocks), 'block')}"
    shots, size = plural(plan.shots, "shot"), format_bytes(bytes_in(take.folder))
    return f"{take.folder}: {shots}, {plan.seconds:.1f} s, {state}, {size}"
