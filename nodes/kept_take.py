"""Takes that save themselves: a film made on the canvas that is in no take is stored in one of its own."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from dataclasses import replace
from pathlib import Path

import folder_paths

from ..longlive_core.film.block_store import MemoryStore
from ..longlive_core.film.kept_store import KeptStore
from ..longlive_core.film.take_store import TakeStore
from ..longlive_core.script import ShotScript
from ..longlive_core.take import Take, follow
from ..longlive_core.take.candidates import Candidates
from ..longlive_core.take.carry_over import carry_over
from ..longlive_core.take.follow import LockedShotError
from ..longlive_core.take.lock import TakeLock
from ..longlive_core.take.settings import Settings, changes_bits, with_unrecorded
from ..longlive_core.take.sources import save_sources
from ..longlive_core.take.storyboard import carry_storyboard, with_storyboard
from ..longlive_core.take.take import FILE, SUFFIX
from .fingerprint import text_fingerprint
from .keep_settings import KeepSettings
from .take_settings import machine_of_model, recorded_settings, script_of_stream
from .types import Stream

log = logging.getLogger(__name__)

FOLDER = "takes/auto"
# How many of a node's takes are compared with its film, from the newest on.
COMPARED = 20


def keep(stream: Stream, workflow: str, user: str) -> list[str]:
    """Stores the blocks of a stream's film in a take: that of an earlier run if the film is the same or edited.

    workflow: the id of the workflow, or an empty text for a prompt that has none, which is not made on a canvas: its
    film keeps no take. user: of the host, whose settings hold. A stream that has a take of its own, continues one or a
    given video, or is only a storyboard stays as it is, and so does a chain that has storyboards. Returns notes, also
    if no take can be written. Raises LockedShotError.
    """
    chain_boards = stream.earlier is not None and any(member.film.storyboard for member in stream.chain)
    if not workflow or chain_boards or not _can_be_kept(stream) or not KeepSettings.load(user).keep:
        return []
    film, held = stream.film, stream.film.store
    try:
        take = _open(stream, film_key(workflow, stream.node))
        if take.plan.blocks != film.plan.blocks:
            raise ValueError("its script cannot be written")
        store = KeptStore(take, on_note=lambda note: log.info("LongLive: %s", note), live=stream.live)
        if isinstance(held, MemoryStore) or (isinstance(held, KeptStore) and held.error is not None):
            with store.locked():
                store.adopt(held.finished_blocks())
    except LockedShotError:
        raise
    except (OSError, ValueError) as error:
        log.warning("LongLive: the film is made without a take: %s", error)
        return [f"made without a take, so that it cannot go on after a restart: {error}"]
    film.store = store
    if film.storyboard is not None:
        film.storyboard.store.is_locked = True  # by the film, which has the storyboard in its take
        film.adopt(store.finished_blocks())
    return []


def keep_storyboard(stream: Stream, workflow: str, user: str) -> TakeStore | None:
    """Returns a store for the storyboard of a stream in the take that `keep` would store its film in.

    The take's shots without a first block become storyboard versions, with which the film then begins. None if such a
    film keeps no take, and for a chain, whose earlier shots have no place on its storyboard. Raises LockedShotError,
    and OSError or ValueError if no take can be written.
    """
    if not workflow or stream.earlier is not None or not _can_be_kept(stream) or not KeepSettings.load(user).keep:
        return None
    take = _open(stream, film_key(workflow, stream.node))
    with TakeLock(take.folder):
        take = with_storyboard(take)
        take.save()
    return TakeStore(take, on_note=lambda note: log.info("LongLive: %s", note), storyboard=True)


def film_key(workflow: str, node: str) -> str:
    """Returns the part of a take's name that says which workflow and node made it. node: as in `12:5`."""
    return hashlib.sha256(json.dumps([workflow, node]).encode()).hexdigest()[:8]


def kept_folder() -> Path:
    """The folder of takes that saved themselves."""
    return Path(folder_paths.get_output_directory()) / FOLDER


def kept_takes(key: str) -> list[tuple[int, Path]]:
    """Lists numbers and folders of the takes with a key, newest first."""
    pattern = re.compile(rf".* {re.escape(key)}_(\d{{5,}}){re.escape(SUFFIX)}")
    folders = kept_folder().iterdir() if kept_folder().is_dir() else ()
    found = [(int(match[1]), path) for path in folders if (match := pattern.fullmatch(path.name)) is not None]
    return sorted(found, reverse=True)


def _can_be_kept(stream: Stream) -> bool:
    """Whether every node of a film samples it, into memory, and the last one nowhere but into a take of its own."""
    *before, last = (member.film.store for member in stream.chain)
    in_memory = all(isinstance(store, MemoryStore) for store in before) and isinstance(last, MemoryStore | KeptStore)
    return in_memory and all(_samples(member) for member in stream.chain)


def _samples(stream: Stream) -> bool:
    recorded = stream.recorded or {"storyboard": "only"}
    return stream.film.start_generation is not None and recorded.get("storyboard") != "only"


def _open(stream: Stream, key: str) -> Take:
    """The saved take of this film, which remembers what the film is made from."""
    take = _find(stream, key)
    if stream.sources is not None:
        save_sources(take.folder, stream.sources)
    return take


def _find(stream: Stream, key: str) -> Take:
    """The saved take of this film: one that has it, else one of which it is an edit, else a new one."""
    settings, script = _settings(stream), script_of_stream(stream)
    takes = kept_takes(key)
    film, found = _Film(stream, script, settings), Candidates()
    for _, folder in takes[:COMPARED]:
        film.compare(folder, found)
    for take in found.same_film:
        try:
            with TakeLock(take.folder):
                saved = Take.load(take.folder)
                followed = follow(saved, script)
                if followed != saved:
                    followed.save()
                return followed
        except (BlockingIOError, FileNotFoundError):
            continue  # another server makes it, or it was removed just now
    if found.locked is not None:
        raise found.locked
    number = takes[0][0] + 1 if takes else 1
    return _begin(stream, script, settings, found.most_shared, f"{key}_{number:05}")


def _begin(stream: Stream, script: ShotScript, settings: Settings, earlier: Take | None, name: str) -> Take:
    """A new take, with the first blocks of an earlier one where they are the same."""
    folder = kept_folder() / f"{time.strftime('%Y-%m-%d')} {name}{SUFFIX}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    machine = machine_of_model(stream.spec.model)
    take = Take.new(folder, script, settings, machine)
    with TakeLock(folder):
        if (folder / FILE).exists():
            raise FileExistsError(f"another process created {folder} at the same time: queue again")
        stream.cast.save(take)
        take.save()
        if earlier is not None:
            carry_over(earlier, take)
            take = carry_storyboard(earlier, take)
            if earlier.machine != machine and take.block_count():
                take = replace(take, machine=earlier.machine)
                take.save()
    return take


def _settings(stream: Stream) -> Settings:
    """The settings that the take records; a storyboard that is in the take is no setting but versions of its shots."""
    recorded, storyboard = recorded_settings(stream), stream.film.storyboard
    in_take = storyboard is not None and isinstance(storyboard.store, TakeStore)
    return {**recorded, "storyboard": "off"} if in_take else recorded


class _Film:
    """What a take is compared with."""

    def __init__(self, stream: Stream, script: ShotScript, settings: Settings) -> None:
        self._stream, self._script, self._settings = stream, script, with_unrecorded(settings)

    def compare(self, folder: Path, found: Candidates) -> None:
        """Adds a take to the candidates if it was made with the film's settings and text encoder."""
        try:
            take = Take.load(folder)
        except (OSError, ValueError):
            return  # of another version of LongLive, or being removed
        if not changes_bits(take.settings, self._settings) and self._has_encoder(take):
            found.add(take, self._script, {**self._settings, "text": take.settings.get("text")})

    def _has_encoder(self, take: Take) -> bool:
        """Whether the film's text encoder made the take: it encodes the prompts with which the take began."""
        spec = self._stream.spec
        embeddings, prompts = dict(spec.embeddings), [block.prompt for block in take.as_begun.plan.blocks]
        for prompt in prompts:
            if prompt not in embeddings and spec.encode is not None:
                embeddings[prompt] = spec.encode(prompt)
        return all(prompt in embeddings for prompt in prompts) and (
            text_fingerprint(prompts, embeddings) == take.settings.get("text")
        )
