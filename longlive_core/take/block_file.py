"""The file of one block: its latents, its spec and settings, and the fingerprint of the blocks before it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..types import Block, BlockSpec
from .settings import Settings

FORMAT = "longlive-block-2"
PARTIAL = ".partial"
NOTHING_RECALLED = {"recalled": list[int]()}


class History(NamedTuple):
    """Fingerprint of all blocks before a point of the film; equal only if their latents are equal bit for bit."""

    digest: str = ""

    def then(self, block: str) -> History:
        """Returns the history after a block with this digest."""
        return History(hashlib.sha256(f"{self.digest}/{block}".encode()).hexdigest()[:32])


class BlockRecord(NamedTuple):
    """What a block's file records: the history before the block and the digest of its latents."""

    history: History
    digest: str


class BadBlockError(ValueError):
    """A block's file cannot be used; the message says why."""


def save_block(path: Path, block: Block, settings: Settings, history: History) -> str:
    """Writes a block atomically and returns its digest. Raises OSError and leaves no partial file."""
    latents = block.latents.detach().to("cpu", torch.float32).contiguous()
    digest = latents_digest(latents)
    facts = {
        "format": FORMAT,
        "spec": json.dumps(_facts(block.spec)),
        "settings": json.dumps(dict(settings)),
        "history": history.digest,
        "digest": digest,
    }
    write_atomically(path, lambda partial: save_file({"latents": latents}, partial, facts))
    return digest


def load_block(path: Path, spec: BlockSpec, settings: Settings) -> tuple[Block, BlockRecord]:
    """Reads the block of this spec and these settings, latents `[1, C, F, H, W]` float32, and its record.

    Raises FileNotFoundError, and BadBlockError if the file is damaged or belongs to another film.
    """
    made_by, record = read_record(path)
    now = {**NOTHING_RECALLED, **_facts(spec), **settings}
    made_by = {**NOTHING_RECALLED, **made_by}
    differences = [
        f"{key} was {made_by.get(key)!r}, now {value!r}" for key, value in now.items() if value != made_by.get(key)
    ]
    if differences:
        raise BadBlockError(f"{path} belongs to another film: {'; '.join(differences)}")
    try:
        with safe_open(path, "pt") as file:
            # A copy, because a tensor that maps the file would keep it open.
            latents = file.get_tensor("latents").clone()
    except (SafetensorError, OSError) as error:
        raise BadBlockError(f"{path} is damaged ({error})") from error
    if latents_digest(latents) != record.digest:
        raise BadBlockError(f"{path} is damaged (the checksum of its latents differs)")
    return Block(spec, latents), record


def _facts(spec: BlockSpec) -> dict[str, object]:
    """What a file records of a spec: without the recalled blocks if there are none, as before there were any."""
    facts = {**asdict(spec), "recalled": list(spec.recalled)}
    return {name: value for name, value in facts.items() if (name, value) != ("recalled", [])}


def latents_digest(latents: Tensor) -> str:
    """Fingerprint of latents `[1, C, F, H, W]` on the CPU: shape, dtype and every bit."""
    digest = hashlib.sha256(f"{tuple(latents.shape)} {latents.dtype}".encode())
    digest.update(latents.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file under a temporary name and renames it, so that it is complete or absent. Raises OSError."""
    # A name of its own: a process whose take was taken over may still be at the same file.
    partial = path.with_suffix(f".{secrets.token_hex(4)}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        os.replace(partial, path)
    except (SafetensorError, OSError) as error:  # safetensors raises its own error for a full disk
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OSError(f"cannot write {path} ({why}); free disk space and resume, or render without a take") from error


def write_text(path: Path, text: str) -> None:
    """Writes a text as `write_atomically` does."""

    def write(partial: Path) -> None:
        partial.write_text(text, "utf-8")

    write_atomically(path, write)


def read_record(path: Path) -> tuple[dict[str, object], BlockRecord]:
    """Reads the spec and the settings of a block, as one mapping, and its record, without its latents.

    Raises FileNotFoundError, and BadBlockError if the file is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise BadBlockError(f"{path} is not a block of a LongLive film (format {metadata.get('format')!r})")
        made_by = {**json.loads(metadata["spec"]), **json.loads(metadata["settings"])}
        return made_by, BlockRecord(History(metadata["history"]), metadata["digest"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise BadBlockError(f"{path} is damaged ({error})") from error
