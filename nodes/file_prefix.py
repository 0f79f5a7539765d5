"""Folder and name of a file in the output folder, with the tokens of core's Save Video."""

from __future__ import annotations

import os.path
import re
import time

import folder_paths

# The front-end replaces `%date:…%` in the widgets that it knows: not over a wire, and not for a script.
DATE = re.compile("%date:([^%]*)%")
DATE_PART = re.compile("dd?|MM?|hh?|mm?|ss?|yyy?y?")


def output_path(name: str, prefix: str, width: int, height: int) -> tuple[str, str, int, str]:
    """Returns folder, file name, next free number and subfolder of a prefix. Raises ValueError as `check_prefix`.

    name: the input that has the prefix. width, height: in pixels, for `%width%` and `%height%`.
    """
    check_prefix(name, prefix)
    folder, stem, counter, subfolder, _ = folder_paths.get_save_image_path(
        replace_dates(prefix, time.localtime()), folder_paths.get_output_directory(), width, height
    )
    return folder, stem, counter, subfolder


def check_prefix(name: str, prefix: str | None) -> None:
    """Raises ValueError for a prefix that has no name, or leaves the output folder. None: it comes over a wire."""
    if prefix is None:
        return
    path = os.path.normpath(replace_dates(prefix, time.localtime()))
    if os.path.basename(path).strip() in ("", "."):
        example = "takes/LongLive" if name == "name_prefix" else "video/LongLive"
        raise ValueError(f"{name} {prefix!r} is empty: write a name, or a folder and a name, such as {example}")
    if os.path.isabs(path) or path.split(os.sep)[0] == "..":
        raise ValueError(f"{name} {prefix!r} is outside the output folder: write a folder in it and a name")


def replace_dates(prefix: str, now: time.struct_time) -> str:
    """Replaces `%date:yyyy-MM-dd hh.mm.ss%`, and parts of it, as the front-end does."""
    return DATE.sub(lambda date: DATE_PART.sub(lambda part: _date_part(part[0], now), date[1]), prefix)


def _date_part(part: str, now: time.struct_time) -> str:
    if part[0] == "y":
        year = str(now.tm_year)
        return {"yy": year[2:], "yyyy": year}.get(part, part)
    values = {"d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}
    return str(values[part[0]]).zfill(len(part))
