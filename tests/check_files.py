"""The pre-commit hook for files that no other tool reads: `check_files.py FILE…` lists what is wrong, and fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARSERS = {".json": json.loads, ".toml": tomllib.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load}
# The weights of LongLive Mini are the largest files that belong here.
LARGEST = 8_000_000


def faults(path: Path) -> Iterator[str]:
    """What is wrong with a file: a link, too large, not the JSON, TOML or YAML of its name, no last newline."""
    if path.is_symlink():
        yield f"{path}: a link, whose target other machines do not have"
        return
    data = path.read_bytes()
    if len(data) > LARGEST:
        yield f"{path}: {len(data):,} bytes; at most {LARGEST:,} belong into the repository"
    try:
        text = data.decode("utf-8")
        if b"\0" in data:
            return
    except UnicodeDecodeError:
        return
    if parse := PARSERS.get(path.suffix):
        try:
            parse(text)
        except (ValueError, yaml.YAMLError) as error:
            yield f"{path}: {error}"
    if text and not text.endswith("\n"):
        yield f"{path}: no newline at the end"


def main(names: list[str]) -> int:
    """The hook's exit code: 1 where a file is at fault."""
    found = [fault for name in names if _exists(Path(name)) for fault in faults(Path(name))]
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


def _exists(path: Path) -> bool:
    return path.is_file() or path.is_symlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
