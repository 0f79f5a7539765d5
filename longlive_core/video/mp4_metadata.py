"""Changes metadata of a finished mp4 or mov: values of keys in its `moov` box (ISO 14496-12, QuickTime `mdta`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

# Boxes that hold boxes on the way to the values; the content of `meta` follows a version and flags.
HEAD, FULL_HEAD = 8, 12
PATH = (b"moov", b"udta", b"meta")
# The type of a value that is text.
UTF8 = 1


class Box(NamedTuple):
    """A box: four letters, and its content [start, end) in the file's bytes."""

    name: bytes
    start: int
    end: int


def with_metadata(data: bytes, values: Mapping[str, str]) -> bytes:
    """Returns boxes of a file, with other values for keys that its metadata has; other keys are left out.

    The `moov` box may become longer, so no box whose place in the file matters may follow it. Raises ValueError if
    there is no `moov` box or the boxes are damaged.
    """
    made = [_changed(data, box, PATH, values) for box in _boxes(data, 0, len(data))]
    if not any(box.name == PATH[0] for box in _boxes(data, 0, len(data))):
        raise ValueError("the file has no moov box")
    return b"".join(made)


def _changed(data: bytes, box: Box, path: tuple[bytes, ...], values: Mapping[str, str]) -> bytes:
    """The bytes of a box, after the change if it is the next one of the path."""
    if box.name != path[0]:
        return data[box.start - HEAD : box.end]
    if len(path) > 1:
        inner = (_changed(data, part, path[1:], values) for part in _boxes(data, box.start, box.end))
        return _box(box.name, b"".join(inner))
    flags = FULL_HEAD - HEAD
    parts = list(_boxes(data, box.start + flags, box.end))
    keys = next((list(_keys(data, part)) for part in parts if part.name == b"keys"), [])
    content = b"".join(
        _values(data, part, keys, values) if part.name == b"ilst" else data[part.start - HEAD : part.end]
        for part in parts
    )
    return _box(box.name, data[box.start : box.start + flags] + content)


def _values(data: bytes, box: Box, keys: list[str], values: Mapping[str, str]) -> bytes:
    """The `ilst` box: for each key, by its number from 1, a box with a `data` box."""
    items = b""
    for item in _boxes(data, box.start, box.end):
        number = int.from_bytes(item.name, "big")
        new = values.get(keys[number - 1]) if 1 <= number <= len(keys) else None
        if new is None:
            items += data[item.start - HEAD : item.end]
        else:
            items += _box(item.name, _box(b"data", UTF8.to_bytes(4, "big") + bytes(4) + new.encode()))
    return _box(box.name, items)


def _keys(data: bytes, box: Box) -> Iterator[str]:
    """The names in a `keys` box, which has flags and a count in front of them."""
    for key in _boxes(data, box.start + 8, box.end):
        yield data[key.start : key.end].decode()


def _boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    while start < end:
        size = int.from_bytes(data[start : start + 4], "big")
        if size < HEAD or start + size > end:
            raise ValueError(f"a box of {size} bytes at {start} does not fit into {end - start} bytes")
        yield Box(data[start + 4 : start + HEAD], start + HEAD, start + size)
        start += size


def _box(name: bytes, content: bytes) -> bytes:
    return (HEAD + len(content)).to_bytes(4, "big") + name + content
