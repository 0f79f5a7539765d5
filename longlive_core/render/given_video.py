"""A given video as the first shot of a film of the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

from torch import Tensor

from ..script import ShotScript
from ..take import Take
from ..take.append import append
from ..take.from_video import save_video, take_of_video
from ..take.settings import Settings, machine_settings
from ..take.take import block_counts_in
from ..types import BLOCK_FRAMES, FPS, LATENT_CHANNELS, BlockSpec, LatentShape, video_frames
from ..vae import WanVAE
from ..vae.encode_clip import encode_chunks, whole_blocks
from ..video.clip import Clip, ClipStopped
from ..video.wave_file import write_wave
from .prepare_take import new_take
from .settings import RenderSettings
from .write_film import Progress


class GivenVideo:
    """A video that becomes the first blocks of a film, and the script of the shots that follow.

    A film continues only from whole blocks, so that surplus frames at the video's beginning are left out.
    """

    def __init__(
        self, settings: RenderSettings, video: Path, prompt: str, text: str, should_stop: Callable[[], bool] | None
    ) -> None:
        """Reads the video's timestamps and the script.

        prompt: a description of the video. text: the script of the shots that follow; the prompt may use its names, and
        its style applies to both.

        Raises ValueError (including ScriptError), OSError, and ClipStopped.
        """
        script = ShotScript.parse(text)
        self._clip = Clip(video, FPS, should_stop or (lambda: False))
        self._count, self._surplus = whole_blocks(self._clip.frames, BLOCK_FRAMES)
        self._sound = self._clip.sound(self._surplus)
        make = partial(new_take, settings, recorded={"fps": FPS, "block_frames": BLOCK_FRAMES})
        self.take = append(take_of_video(self._count, prompt, script, make), text)

    @property
    def notes(self) -> list[str]:
        """Notes on what was changed in the video or left out of it."""
        notes = list(self._clip.notes)
        if self._surplus:
            seconds = self._surplus / FPS
            notes.append(
                f"the first {self._surplus} frames of the video, {seconds:.2f} s, are left out to get whole blocks"
            )
        if self._sound is not None:
            notes.append("the video's sound is kept with its frames; the shots after it are silent")
        return notes

    def begin_take(self, recorded: Settings) -> Take:
        """Writes the take of the video and the shots. Raises FileExistsError if its folder has another film."""
        take = replace(self.take, settings=recorded, machine=machine_settings())
        if any(block_counts_in(take.folder)) and not _is_begun(take):
            raise FileExistsError(
                f"{take.folder} holds another film; give this one another name with -o, or add the shots to that film: "
                f"`longlive extend {take.folder} SCRIPT`"
            )
        take.begin()
        return take

    def encode(
        self,
        take: Take,
        vae: WanVAE,
        size: tuple[int, int],
        on_progress: Callable[[Progress], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        """Encodes the video's blocks into the take. size: (height, width) in latent cells.

        Raises OSError, and ClipStopped after a stop; the take is removed then.
        """
        shape = LatentShape(1, LATENT_CHANNELS, BLOCK_FRAMES, *size)
        began = perf_counter()

        def latents() -> Iterator[Tensor]:
            if self._sound is not None:  # here, so that the take is removed if the disk is full
                write_wave(take.sound, self._sound)
            yield from encode_chunks(self._clip.pieces(self._surplus), vae, shape, lambda: None)

        def show(spec: BlockSpec) -> None:
            if on_progress is not None:
                done, total = (video_frames(n * BLOCK_FRAMES) for n in (spec.index + 1, self._count))
                on_progress(Progress(spec, self._count, 1, done, total, perf_counter() - began))

        if not save_video(take, latents(), should_stop or (lambda: False), show):
            raise ClipStopped


def _is_begun(take: Take) -> bool:
    """Whether the take's folder has this film already, for example from a process that was killed."""
    stored = Take.load(take.folder)
    return stored.script == take.script and stored.settings == take.settings
