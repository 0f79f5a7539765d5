"""The file of a film that LongLive Async Decode makes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import comfy.sd
from comfy_api.latest import io, ui

from ..longlive_core.pipeline.write import NewFile
from ..longlive_core.render.film_index import Encoding
from ..longlive_core.render.numbered_films import NumberedFilms
from ..longlive_core.render.reuse import ReusingFile
from ..longlive_core.take import Take
from ..longlive_core.units import plural
from ..longlive_core.video import Audio, FilmWriter, film_path, open_film
from .file_prefix import output_path
from .fingerprint import vae_fingerprint
from .types import Stream

log = logging.getLogger(__name__)


class FilmFile:
    """The path of a new film, with the next free number under a prefix, and what the node shows of it."""

    def __init__(self, prefix: str, stream: Stream, codec: str, quality: str) -> None:
        pixels = stream.spec.shape.pixels
        self._width, self._height, self._plan = pixels.width, pixels.height, stream.film.plan
        self._codec, self._quality = codec, quality
        folder, name, counter, self._subfolder = output_path("filename_prefix", prefix, self._width, self._height)
        self.path = film_path(Path(folder) / f"{name}_{counter:05}_", codec)

    def open(
        self, take: Take | None, vae: comfy.sd.VAE, reach: int, sound: Audio | None, metadata: Mapping[str, str]
    ) -> NewFile:
        """Opens the file. Blocks that earlier files of its take have, decoded by this VAE, are copied from there.

        reach: how many earlier latent frames the pixels of a frame depend on. Raises OSError.
        """
        writer = partial(
            open_film,
            self.path,
            width=self._width,
            height=self._height,
            fps=Fraction(self._plan.fps),
            codec=self._codec,
            quality=self._quality,
            audio=sound,
            metadata=metadata,
        )
        if take is None:
            return NewFile(writer())
        earlier = NumberedFilms(take, self.path, Encoding(self._codec, self._quality, vae_fingerprint(vae)))
        try:
            return ReusingFile(earlier, writer, ceil(reach / self._plan.block_frames))
        except OSError as error:
            log.info("LongLive: the blocks of %s are not indexed: %s", self.path, error)
            return NewFile(writer())

    @property
    def fields(self) -> dict[str, str]:
        """The file as the host's /view takes it: the fields of `FilmInfo`."""
        return {"name": self.path.name, "subfolder": self._subfolder, "type": io.FolderType.output.value}

    def ui(self, file: NewFile) -> dict[str, Any]:
        """The film, and a line with its file and length, as in `video/LongLive_00001_.mp4: 189 frames, 7.88 s`."""
        plan = self._plan
        name = (Path(self._subfolder) / self.path.name).as_posix()
        line = f"{name}: {plural(plan.video_frames, 'frame')}, {plan.seconds:.2f} s"
        if isinstance(file, ReusingFile) and file.copied:
            line += f" ({file.copied} of {plural(len(plan.blocks), 'block')} copied from earlier files)"
        # As of core's Save Video. The front-end's preview of videos would be a widget, which the cache takes for a
        # change of the graph; the film plays in a widget of ours.
        return {"video": [ui.SavedResult(self.path.name, self._subfolder, io.FolderType.output)], "text": (line,)}

    @contextmanager
    def logged(self, writer: FilmWriter) -> Iterator[None]:
        """Logs where the finished part of the film is if it ends early."""
        try:
            yield
        except BaseException:
            if writer.frames:
                frames = self._plan.video_frames
                log.info("LongLive: %s holds the first %d of %d frames", self.path, writer.frames, frames)
            raise
