"""Writes a film as numbered PNG pictures, without loss."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .audio import Audio
from .film_writer import FilmWriter
from .fragments import cannot_write, stopped_growing
from .image_folder import FILM_FILE, PARTIAL, SOUND, picture_path
from .packets import EncodedFrame, Format
from .wave_file import write_wave

# The compression level of ComfyUI's Save Image node.
COMPRESSION = 4


class ImageSequenceWriter(FilmWriter):
    """A folder of 24-bit pictures 000001.png, … and the sound of the film in sound.wav. No file is ever partial.

    `metadata` is stored as text chunks in every picture, as ComfyUI's Save Image node does. The sound is written when
    the film is opened and trimmed to the length of the film when it is closed.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        width: int,
        height: int,
        fps: int | Fraction = 24,
        audio: Audio | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Creates the folder and deletes the pictures and sound of an earlier film in it.

        Raises ValueError for a size that is not positive, FileExistsError if the folder holds other files, and OSError
        with the path if the folder cannot be written.
        """
        if width <= 0 or height <= 0:
            raise ValueError(f"film size {width}x{height} must be positive")
        super().__init__(width, height)
        self._folder, self._rate, self._audio = Path(path), Fraction(fps), audio
        self._texts = PngInfo()
        for name, text in (metadata or {}).items():
            self._texts.add_text(name, text)
        try:
            self._folder.mkdir(exist_ok=True)
            earlier = list(self._folder.iterdir())
            if foreign := next((file.name for file in earlier if not FILM_FILE.fullmatch(file.name)), None):
                raise FileExistsError(
                    f"{self._folder} holds {foreign}, which is not part of a film; choose another folder"
                )
            for file in earlier:
                file.unlink()
        except OSError as error:
            raise error if error.errno is None else cannot_write(error, self._folder) from error
        if audio is not None:
            self._write_sound(audio)

    def start_block(self) -> None:
        """Does nothing: every picture can be decoded alone."""

    def close(self) -> None:
        """Trims the sound to the length of the film. Closing twice is harmless. Raises OSError as `write` does."""
        audio, self._audio = self._audio, None
        if audio is None:
            return
        samples = int(self.frames / self._rate * audio.rate)
        if samples < audio.waveform.shape[1]:
            self._write_sound(Audio(audio.waveform[:, :samples], audio.rate))

    def abandon(self) -> None:
        """See `FilmWriter`."""
        self._audio = None

    @property
    def _format(self) -> Format:
        return Format("png", self.width, self.height, None, "RGB")

    def _encode(self, picture: NDArray[np.uint8]) -> None:
        image, options = Image.fromarray(picture), {"pnginfo": self._texts, "compress_level": COMPRESSION}
        self._add(lambda file: image.save(file, format="PNG", **options))

    def _copy(self, frame: EncodedFrame) -> None:
        self._add(lambda file: file.write_bytes(frame.data))

    def _add(self, write: Callable[[Path], object]) -> None:
        self._write_file(picture_path(self._folder, self.frames), write)
        self.frames += 1

    def _write_sound(self, audio: Audio) -> None:
        self._write_file(self._folder / SOUND, lambda file: write_wave(file, audio))

    def _write_file(self, path: Path, write: Callable[[Path], object]) -> None:
        """Writes a temporary file and renames it to `path`, so that `path` is never partial."""
        partial = path.with_suffix(PARTIAL)
        try:
            write(partial)
            os.replace(partial, path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise stopped_growing(error, self._folder, f"{self.frames:,} pictures") from error
