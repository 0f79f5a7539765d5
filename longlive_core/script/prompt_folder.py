"""Reads the prompts of the reference: a folder of captions with a file of lengths, and files with a film a line."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from .duration import LIMITS, Length, shorten
from .shots import Shot, ShotScript
from .source import CONTROL, ScriptError, read_text

DURATIONS = "shot_durations.txt"
SPECIAL_CHARACTERS = re.compile(r"[\\|{}\[\]()@]")
FORM = 'a folder of prompts has 1.json, 2.json, … with {"caption": "a red fox"}, and shot_durations.txt with blocks'


def read_script(path: str | Path) -> ShotScript:
    """Reads a script, or a folder of prompts. Raises ScriptError as `ShotScript.read`, and for an incomplete folder."""
    return read_prompt_folder(Path(path)) if Path(path).is_dir() else ShotScript.read(path)


def read_prompt_folder(folder: Path) -> ShotScript:
    """Reads `1.json`, `2.json`, …, one shot each, with lengths in blocks from `shot_durations.txt` if there is one.

    Captions are plain text. Raises ScriptError if a file is missing or is something else, and if the counts differ.
    """
    inner = folder / "caption"
    files = _captions(folder) or (_captions(inner) if inner.is_dir() else [])
    if not files:
        films = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _captions(entry))
        if films:
            what = f"{folder} has {len(films)} folders of prompts, each a film"
            raise ScriptError(what, remedy=f"give one of them, as {folder / films[0]}")
        raise ScriptError(f"cannot read {folder}: it is a folder without prompts", remedy=FORM)
    lengths = _lengths(files[0].parent / DURATIONS) or _lengths(folder / DURATIONS)
    if lengths and len(lengths) != len(files):
        what = f"{DURATIONS} has {len(lengths)} lengths for {len(files)} captions"
        raise ScriptError(
            what, remedy=f"write one for each of {', '.join(shorten(file.name) for file in files[:3])}, …"
        )
    shots = [plain_shot(_caption(file), lengths[index] if lengths else None) for index, file in enumerate(files)]
    return ShotScript.parse(ShotScript(tuple(shots)).format())


def read_films(path: str | Path) -> list[ShotScript]:
    """Reads a text file with a film of one shot on each line; the lines are plain text. Raises ScriptError."""
    prompts = [line for line in read_text(path).removeprefix("\ufeff").splitlines() if line.strip()]
    if not prompts:
        raise ScriptError(f"{path} has no prompts", remedy="write a prompt on each line")
    return [ShotScript.parse(ShotScript((plain_shot(prompt, None),)).format()) for prompt in prompts]


def plain_shot(prompt: str, length: Length | None) -> Shot:
    """A shot of a plain text: no sign in it has a meaning."""
    text = SPECIAL_CHARACTERS.sub(r"\\\g<0>", " ".join(prompt.split()))
    return Shot(text, prompt, length)


def _captions(folder: Path) -> list[Path]:
    """The files of captions in the order of their numbers; `global.json` and others without a number are no shots."""
    files = [file for file in folder.glob("*.json") if file.stem.isdecimal() and len(file.stem) < 10]
    return sorted(files, key=lambda file: int(file.stem))


def _caption(file: Path) -> str:
    try:
        value: Any = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ScriptError(f"{file} is not JSON: {error}", remedy=FORM) from error
    caption = value.get("caption") if isinstance(value, dict) else None
    if not isinstance(caption, str) or not caption.strip():
        raise ScriptError(f"{file} has no caption", remedy=FORM)
    if control := CONTROL.search(" ".join(caption.split())):
        raise ScriptError(f"{file} has the control character U+{ord(control[0]):04X}", remedy="remove it")
    return caption


def _lengths(file: Path) -> list[Length]:
    """The lengths of a file in blocks, between white space or commas; none without the file."""
    if not file.is_file():
        return []
    words = re.split(r"[\s,;]+", read_text(file).strip(" \t\r\n,;\ufeff"))
    for word in words:
        if not (word.isascii() and word.isdecimal() and 0 < int(word[:9]) <= LIMITS["blocks"] and len(word) < 9):
            what = f"{file} has '{shorten(word)}', which is not a number of blocks"
            raise ScriptError(what, remedy="write whole numbers above 0, as in 3, 4, 2")
    return [Length(Decimal(word), "blocks") for word in words]
