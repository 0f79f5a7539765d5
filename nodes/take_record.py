"""What a take remembers of the newest run of its film: file, workflow, stills of its shots and pace."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args

from ..longlive_core.film.kept_store import KeptStore
from ..longlive_core.film.take_store import TakeStore
from ..longlive_core.pipeline.stills import still_at
from ..longlive_core.pipeline.write import Written
from ..longlive_core.take import Take
from ..longlive_core.take.block_file import write_text
from ..longlive_core.take.pace import save_pace
from ..longlive_core.take.stills import save_still
from ..longlive_core.take.take import FILM_FILE, WORKFLOW
from .run_stream import StreamRun
from .types import Stream

log = logging.getLogger(__name__)


class TakeRecord:
    """The record of a stream's take; it does nothing for a stream that has none. No error of it ends the film."""

    def __init__(self, stream: Stream) -> None:
        self._film = stream.film
        self._block = self._piece = -1

    @property
    def take(self) -> Take | None:
        """The take that stores the film."""
        return self._film.store.take if isinstance(self._film.store, TakeStore) else None

    @property
    def name(self) -> str | None:
        """The name of the take, if it is in the output folder."""
        output = Path(folder_paths.get_output_directory()).resolve()
        folder = None if self.take is None else self.take.folder.resolve()
        return folder.relative_to(output).as_posix() if folder is not None and folder.is_relative_to(output) else None

    @property
    def notes(self) -> list[str]:
        """Notes on a take that the disk could not hold."""
        error = self._film.store.error if isinstance(self._film.store, KeptStore) else None
        return [] if error is None else [f"the film is whole, but its take is not: {error}"]

    @contextmanager
    def of_run(
        self, run: StreamRun, film: Mapping[str, str], workflow: Callable[[], Mapping[str, Any] | None]
    ) -> Iterator[None]:
        """Records file and workflow at the beginning, and workflow and pace however the run ends.

        film: the fields of the host's /view. workflow: returns the workflow with the script that the film follows.
        """
        self._write_json(FILM_FILE, {"filename": film["name"], "subfolder": film["subfolder"], "type": film["type"]})
        begun = workflow()
        self._write_workflow(begun)
        try:
            yield
        finally:
            if (followed := workflow()) != begun:
                self._write_workflow(followed)
            if self.take is not None and (seconds := run.seconds_per_block) is not None:
                self._try(lambda take: save_pace(take.folder, seconds))

    def add(self, written: Written) -> None:
        """Stores the still of a shot beside the blocks of its version."""
        self._piece = self._piece + 1 if written.block.index == self._block else 0
        self._block = written.block.index
        at = still_at(written.block)
        if written.frames is None or self._piece != at or not self._film.plan.begins_shot(written.block):
            return
        shot, frame = written.block.shot, written.frames[-1]
        self._try(lambda take: save_still(take, shot, take.shots[shot].chosen, frame))

    def _write_workflow(self, workflow: Mapping[str, Any] | None) -> None:
        if workflow is not None and not args.disable_metadata:
            self._write_json(WORKFLOW, workflow)

    def _write_json(self, name: str, content: object) -> None:
        text = json.dumps(content) + "\n"
        self._try(lambda take: write_text(take.folder / name, text))

    def _try(self, write: Callable[[Take], None]) -> None:
        if self.take is None:
            return
        try:
            write(self.take)
        except OSError as error:
            log.info("LongLive: %s", error)
