"""A given video as the first shot of a film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

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
from .prepare_take import new_take
from .settings import RenderSettings
from .write_film import Progress


class GivenVideo:
    """A video that becomes a film's first blocks, and the script of the shots behind it.

    A film continues from whole blocks, so that the video's first frames are left out where they make no whole block.
    """

    def __init__(
        self, settings: RenderSettings, video: Path, prompt: str, text: str, should_stop: Callable[[], bool] | None
    ) -> None:
        """Reads the video's times and the script.

        prompt: what the video shows. text: the script of the shots behind it; its names and style hold for both.

        Raises ValueError (ScriptError among them), OSError, and ClipStopped.
        """
        script = ShotScript.parse(text)
        self._clip = Clip(video, FPS, should_stop or (lambda: False))
        self._count, self._surplus = whole_blocks(self._clip.frames, BLOCK_FRAMES)
        make = partial(new_take, settings, recorded={"fps": FPS, "block_frames": BLOCK_FRAMES})
        self.take = append(take_of_video(self._count, prompt, script, make), text)

    @property
    def notes(self) -> list[str]:
        """What of the video is left out."""
        if not self._surplus:
            return []
        seconds = self._surplus / FPS
        return [f"the first {self._surplus} frames of the video, {seconds:.2f} s, are left out: whole blocks remain"]

    def begin_take(self, recorded: Settings) -> Take:
        """Writes the take of video and shots. Raises FileExistsError where its folder holds another film."""
        take = replace(self.take, settings=recorded, machine=machine_settings())
        if any(block_counts_in(take.folder)) and not _is_begun(take):
            raise FileExistsError(
                f"{take.folder} holds another film; name this one otherwise with -o, or put the shots behind that one: "
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

        Raises OSError, and ClipStopped for a stop, with nothing left on disk.
        """
        shape = LatentShape(1, LATENT_CHANNELS, BLOCK_FRAMES, *size)
        latents = encode_chunks(self._clip.pieces(self._surplus), vae, shape, lambda: None)
        began = perf_counter()

        def show(spec: BlockSpec) -> None:
            if on_progress is not None:
                done, total = (video_frames(n * BLOCK_FRAMES) for n in (spec.index + 1, self._count))
                on_progress(Progress(spec, self._count, 1, done, total, perf_counter() - began))

        if not save_video(take, latents, should_stop or (lambda: False), show):
            raise ClipStopped


def _is_begun(take: Take) -> bool:
    """Whether the take's folder holds this very film, as far as its video was encoded before a kill."""
    stored = Take.load(take.folder)
    return stored.script == take.script and stored.settings == take.settings
