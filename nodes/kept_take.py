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
from ..longlive_core.script import ShotScript
from ..longlive_core.take import Take, follow, preview_changes
from ..longlive_core.take.carry_over import carry_over
from ..longlive_core.take.changes import Changes
from ..longlive_core.take.follow import LockedShotError
from ..longlive_core.take.lock import TakeLock
from ..longlive_core.take.settings import Settings, changes_bits, with_unrecorded
from ..longlive_core.take.take import FILE, SUFFIX
from .fingerprint import text_fingerprint
from .keep_settings import KeepSettings
from .take_settings import machine_of_model, recorded_settings, script_of_stream
from .types import Stream

log = logging.getLogger(__name__)

FOLDER = "takes/auto"
# How many of a node's takes are compared with its film, from the newest on.
COMPARED = 20


def keep(stream: Stream, workflow: str) -> list[str]:
    """Stores the blocks of a stream's film in a take: that of an earlier run if the film is the same or edited.

    workflow: the id of the workflow, or an empty text for a prompt that has none, which is not made on a canvas: its
    film keeps no take. A stream that has a take of its own, continues another one or is only a storyboard stays as it
    is. Returns notes, also if no take can be written. Raises LockedShotError.
    """
    if not workflow or not _can_be_kept(stream) or not KeepSettings.load().keep:
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
        film.adopt(store.finished_blocks())
    return []


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
    film, recorded = stream.film, stream.recorded or {"storyboard": "only"}
    alone = stream.earlier is None and film.earlier is None and film.start_generation is not None
    return alone and recorded.get("storyboard") != "only" and isinstance(film.store, MemoryStore | KeptStore)


def _open(stream: Stream, key: str) -> Take:
    """The saved take of this film: one that has it, else one of which it is an edit, else a new one."""
    settings, script = recorded_settings(stream), script_of_stream(stream)
    takes = kept_takes(key)
    found = _Candidates(stream, script, settings)
    for _, folder in takes[:COMPARED]:
        found.add(folder)
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
        take.save()
        if earlier is not None and carry_over(earlier, take) and earlier.machine != machine:
            take = replace(take, machine=earlier.machine)
            take.save()
    return take


class _Candidates:
    """The takes of a node that have something in common with a film."""

    def __init__(self, stream: Stream, script: ShotScript, settings: Settings) -> None:
        self._stream, self._script, self._settings = stream, script, with_unrecorded(settings)
        self._exact, self._edited = list[Take](), list[Take]()
        self.locked: LockedShotError | None = None
        self.most_shared: Take | None = None
        self._shared = 0

    @property
    def same_film(self) -> list[Take]:
        """The takes that have every version of the film, then those of which it is an edit."""
        return [*self._exact, *self._edited]

    def add(self, folder: Path) -> None:
        """Compares a take with the film."""
        try:
            take = Take.load(folder)
        except (OSError, ValueError):
            return  # of another version of LongLive, or being removed
        if changes_bits(take.settings, self._settings) or not self._has_encoder(take):
            return
        try:
            changes = preview_changes(take, self._script, {**self._settings, "text": take.settings.get("text")})
        except LockedShotError as error:
            if _has_shot_of(take, self._script) and self.locked is None:
                self.locked = error
            return
        self._sort(take, changes)

    def _sort(self, take: Take, changes: Changes) -> None:
        if changes.another_film or not _has_shot_of(take, self._script):
            if changes.count("kept") > self._shared:
                self.most_shared, self._shared = take, changes.count("kept")
        elif changes.needs_versions:
            self._edited.append(take)
        else:
            self._exact.append(take)

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


def _has_shot_of(take: Take, script: ShotScript) -> bool:
    """Whether a shot of the script has a text that the same shot of the take has had: it is not just any other film."""
    shots = zip(take.shots, script.shots, strict=False)
    return any(written.text in {version.text for version in shot.versions} for shot, written in shots)
