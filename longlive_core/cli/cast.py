"""`longlive cast`: saves a block of a film as a cast file, which other films recall, and shows what is in one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ..script.cast import ENDING, SUFFIX, name_of_path
from ..take import Take
from ..take.cast_file import Card, card_of, check_name, check_replaceable
from ..units import format_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands and their arguments."""
    subcommands = parser.add_subparsers(required=True, metavar="WHAT", dest="what")
    save = subcommands.add_parser("save", help="save a block of a film, for `cast: FILE` in other scripts")
    save.add_argument("take", type=Path, nargs="?", metavar="TAKE", help="the FILM.take of a render")
    save.add_argument("--shot", type=int, metavar="N", help="number of the shot, from 1")
    save.add_argument("--block", type=int, metavar="N", help="number of the block in the shot (1)")
    image = "in place of a TAKE: a picture of the films' size, which stands still for a block (experimental)"
    save.add_argument("--image", type=Path, metavar="FILE.png", help=image)
    save.add_argument("--prompt", metavar="TEXT", help="what the picture shows, with --image")
    save.add_argument("--model", help="the model of the films, as of render, with --image (mini)")
    save.add_argument("--name", help="the name by which @recall=NAME brings it back (the file's)")
    save.add_argument("-o", "--output", type=Path, metavar=f"NAME{SUFFIX}", help="the file to write (named as --name)")
    show = subcommands.add_parser("show", help="show the name, the prompt and the origin of a cast file")
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("--still", type=Path, metavar="FILE.png", help="also write the picture in it")


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand and prints its report; returns the exit code."""
    for line in _save(args) if args.what == "save" else _show(args):
        print(line)
    return 0


def _save(args: argparse.Namespace) -> Iterator[str]:
    """Raises ValueError and OSError."""
    path, name = _target(args)
    card, note = _of_image(args, name) if args.image is not None else _of_take(args, name)
    card.save(path)
    if note:
        yield note
    yield f"{path}: {_summary(card, path)}"
    yield f"write `cast: {path.name}` above the first shot of a script, and @recall={name} into a shot"


def _of_take(args: argparse.Namespace, name: str) -> tuple[Card, str]:
    """The card of a block, and a note. Raises ValueError."""
    from ..render.cast_still import with_model

    if args.take is None or args.shot is None:
        raise ValueError("name the TAKE of a film and one of its shots with --shot, or a picture with --image")
    if args.prompt is not None or args.model is not None:
        raise ValueError(
            "--prompt and --model are for a picture: a block has those that it was made with; leave them out"
        )
    take = Take.load(args.take)
    return with_model(take, card_of(take, args.shot, 1 if args.block is None else args.block, name))


def _of_image(args: argparse.Namespace, name: str) -> tuple[Card, str]:
    """The card of a picture, and a note. Raises ValueError."""
    from ..render.cast_image import card_of_image

    if args.take is not None or args.shot is not None or args.block is not None:
        raise ValueError("--image makes a cast file of a picture: leave TAKE, --shot and --block out")
    if not (args.prompt or "").strip():
        raise ValueError('the picture needs a text for its memory: --prompt "a big red ring in front of a navy wall"')
    card = card_of_image(args.image, name, args.prompt.strip(), args.model or "mini")
    return card, "note: experimental; models know blocks of films, and this one stands still"


def _show(args: argparse.Namespace) -> Iterator[str]:
    from PIL import Image

    card = Card.load(args.file)
    yield f"{args.file}: {_summary(card, args.file)}"
    yield f"prompt: {card.prompt}"
    yield ", ".join(f"{name} {value}" for name, value in card.made_by.items() if value) + f", digest {card.digest}"
    if args.still is not None:
        if card.still is None:
            raise ValueError(f"{args.file} has no picture: save it again where the film's model is, or leave --still")
        Image.fromarray(card.still.numpy()).save(args.still)
        yield f"{args.still} shows it"


def _target(args: argparse.Namespace) -> tuple[Path, str]:
    """The file to write and the name of the card. Raises ValueError."""
    if args.name is None and args.output is None:
        raise ValueError(f"the block has no name: give --name NAME, or -o NAME{SUFFIX}")
    path: Path = args.output or Path(f"{args.name}{SUFFIX}")
    if path.suffix != ENDING:
        raise ValueError(f"{path} does not end with {ENDING}, by which a script knows cast files; name it NAME{SUFFIX}")
    name: str = args.name or name_of_path(path.name)
    check_name(name)
    check_replaceable(path)
    return path, name


def _summary(card: Card, path: Path) -> str:
    picture = "a picture" if card.still is not None else "no picture"
    return f"'{card.name}' of {card.origin}, {picture}, {format_bytes(path.stat().st_size)}"
