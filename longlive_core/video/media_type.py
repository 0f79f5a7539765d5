"""The media type of a film's file with its codecs (RFC 6381), as browsers ask for it before they play one."""

from __future__ import annotations

from pathlib import Path

from .codecs import CODECS

SOUNDS = {"aac": "mp4a.40.2", "libopus": "opus"}
TYPES = {"mp4": "video/mp4", "webm": "video/webm", "mov": "video/quicktime"}
# The header of a film is within this many bytes, except for metadata, which may be behind the codec's settings.
HEADER_BYTES = 1 << 20


def media_type(path: Path, codec: str, sound: bool) -> str:
    """Returns a type such as `video/mp4; codecs="avc1.64000b, mp4a.40.2"`; without codecs if browsers know none.

    path: a film that `VideoWriter` has opened; its header is read. Raises OSError.
    """
    choice = CODECS[codec]
    with path.open("rb") as file:
        picture = _picture(codec, file.read(HEADER_BYTES))
    codecs = [picture, *([SOUNDS.get(choice.sound, "")] if sound else [])]
    named = f'; codecs="{", ".join(codecs)}"' if all(codecs) else ""
    return TYPES[choice.container] + named


def _picture(codec: str, header: bytes) -> str:
    """The codec's name with profile and level from its configuration box; empty if there is none."""
    if codec == "vp9":
        return "vp9"
    if codec == "h264" and (box := _box(header, b"avcC")):
        return f"avc1.{box[1:4].hex()}"
    if codec == "h265" and (box := _box(header, b"hvcC")):
        compatible = int(f"{int.from_bytes(box[2:6], 'big'):032b}"[::-1], 2)
        constraints = [f"{byte:X}" for byte in box[6:12].rstrip(b"\0")]
        tier = "H" if box[1] & 0x20 else "L"
        return ".".join(["hvc1", f"{box[1] & 0x1F}", f"{compatible:X}", f"{tier}{box[12]}", *constraints])
    if codec == "av1" and (box := _box(header, b"av1C")):
        tier = "H" if box[2] & 0x80 else "M"
        return f"av01.{box[1] >> 5}.{box[1] & 0x1F:02}{tier}.08"
    return ""


def _box(header: bytes, name: bytes) -> bytes:
    """The beginning of the body of a box."""
    at = header.find(name)
    body = header[at + 4 : at + 20]
    return body if at >= 0 and len(body) == 16 else b""
