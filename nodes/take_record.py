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
from PIL import Image

from ..longlive_core.film.kept_store import KeptStore
from ..longlive_core.film.take_store import TakeStore
from ..longlive_core.pipeline.write import Written
from ..longlive_core.take import Take
from ..longlive_core.take.block_file import write_atomically, write_text
from ..longlive_core.take.pace import save_pace
from ..longlive_core.take.take import FILM_FILE, WORKFLOW
from .run_stream import StreamRun
from .types import Stream

log = logging.getLogger(__name__)

STILL_PIXELS, STILL_QUALITY = 256, 85
# The latent frame of a shot's first block that the still shows.
STILL_AT = 3


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
    def of_run(self, run: StreamRun, film: Mapping[str, str], extra: Mapping[str, Any] | None) -> Iterator[None]:
        """Records file and workflow at the beginning, and the pace however the run ends.

        film: the fields of the host's /view. extra: the prompt's extra_pnginfo.
        """
        workflow = None if args.disable_metadata else (extra or {}).get("workflow")
        self._write_json(FILM_FILE, {"filename": film["name"], "subfolder": film["subfolder"], "type": film["type"]})
        if workflow is not None:
            self._write_json(WORKFLOW, workflow)
        try:
            yield
        finally:
            if self.take is not None and (seconds := run.seconds_per_block) is not None:
                self._try(lambda take: save_pace(take.folder, seconds))

    def add(self, written: Written) -> None:
        """Stores a frame of a shot's first block beside the blocks of its version.

        It is one of latent frame STILL_AT: the decoder blends the very first ones with the shot before.
        """
        self._piece = self._piece + 1 if written.block.index == self._block else 0
        self._block = written.block.index
        at = min(STILL_AT, written.block.frames - 1)
        if written.frames is None or self._piece != at or not self._film.plan.begins_shot(written.block):
            return
        image = Image.fromarray(written.frames[-1].numpy())
        image.thumbnail((STILL_PIXELS, STILL_PIXELS))
        shot = written.block.shot

        def save(take: Take) -> None:
            write_atomically(take.still(shot, take.shots[shot].chosen), lambda path: _save(image, path))

        self._try(save)

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


def _save(image: Image.Image, path: Path) -> None:
    image.save(path, "JPEG", quality=STILL_QUALITY)
