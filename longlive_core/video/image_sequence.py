"""Frames into numbered pictures while they come, without loss."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from .audio import Audio
from .fragments import cannot_write, stopped_growing
from .frames import checked_frames
from .image_folder import OURS, PARTIAL, SOUND, picture
from .packets import Format, PacketSource, check_copied, check_fits, differences

# As ComfyUI's own Save Image.
COMPRESSION = 4


class PictureWriter:
    """A folder of pictures 000001.png, …, 24 bits, each whole or absent, and the film's sound in sound.wav.

    `metadata` are text chunks of every picture, as ComfyUI's own Save Image writes them. The sound lies there from the
    start, and is cut to the film's length when the film is closed.
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
        """Makes the folder, and empties it of an older film's pictures and sound.

        Raises ValueError for a size that is none, FileExistsError where something else is in the folder, and OSError
        that names the path where it cannot be written.
        """
        if width <= 0 or height <= 0:
            raise ValueError(f"film size {width}x{height} must be positive")
        self.width, self.height, self.frames = width, height, 0
        self._folder, self._rate, self._audio, self._closed = Path(path), Fraction(fps), audio, False
        self._texts = PngInfo()
        for name, text in (metadata or {}).items():
            self._texts.add_text(name, text)
        try:
            self._folder.mkdir(exist_ok=True)
            older = list(self._folder.iterdir())
            foreign = next((file for file in older if not OURS.fullmatch(file.name)), None)
            if foreign is not None:
                raise FileExistsError(f"{self._folder} holds {foreign.name}, which is no film's; choose another folder")
            for file in older:
                file.unlink()
        except OSError as error:
            raise error if error.errno is None else cannot_write(error, self._folder) from error
        if audio is not None:
            self._keep(self._folder / SOUND, lambda file: _write_sound(file, audio))

    def start_block(self) -> None:
        """Nothing to do: every picture stands alone."""

    def write(self, frames: Tensor | NDArray[np.uint8]) -> None:
        """The next frames `[T, height, width, 3]`, uint8.

        Raises ValueError for another shape or dtype, OSError where the disk is full: what was written stays.
        """
        for pixels in checked_frames(frames, self.width, self.height):
            image = Image.fromarray(np.ascontiguousarray(pixels))
            self._add(lambda file, image=image: self._save(file, image))

    def fits(self, reel: PacketSource) -> bool:
        """Whether `copy` takes this film's frames."""
        return not differences(reel.format, self._format)

    def copy(self, reel: PacketSource, start: int, stop: int) -> None:
        """The next pictures are the files of a film made before, [start, stop), their metadata with them.

        Raises ValueError where its size is not this film's, before anything is written; OSError as `write` does.
        """
        check_fits(reel, self._format)
        begun = self.frames
        for piece in reel.pieces(start, stop):
            self._add(lambda file, data=piece.data: _write_bytes(file, data))
        check_copied(reel, self.frames - begun, stop - start)

    def close(self) -> None:
        """Cuts the sound to the film's length; twice is harmless. Raises OSError as `write` does."""
        audio = None if self._closed else self._audio
        self._closed = True
        if audio is None:
            return
        samples = int(self.frames / self._rate * audio.rate)
        if samples < audio.waveform.shape[1]:
            cut = Audio(audio.waveform[:, :samples], audio.rate)
            self._keep(self._folder / SOUND, lambda file: _write_sound(file, cut))

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def _format(self) -> Format:
        return Format("png", self.width, self.height, None, "RGB")

    def _add(self, write: Callable[[Path], None]) -> None:
        self._keep(picture(self._folder, self.frames), write)
        self.frames += 1

    def _save(self, file: Path, image: Image.Image) -> None:
        image.save(file, format="PNG", pnginfo=self._texts, compress_level=COMPRESSION)

    def _keep(self, path: Path, write: Callable[[Path], None]) -> None:
        """A file is whole or absent: it is written beside its name and moved there."""
        partial = path.with_suffix(PARTIAL)
        try:
            write(partial)
            os.replace(partial, path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise stopped_growing(error, self._folder, f"{self.frames:,} pictures") from error


def _write_bytes(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _write_sound(file: Path, audio: Audio) -> None:
    """16 bits a sample."""
    samples = (audio.waveform.clamp(-1, 1).T * 32_767).round().cpu().numpy().astype("<i2")
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(samples.shape[1])
        sound.setsampwidth(2)
        sound.setframerate(audio.rate)
        sound.writeframes(samples.tobytes())
