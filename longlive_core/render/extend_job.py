"""A film that begins with a given video, ordered in one value."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from ..script import ShotScript
from ..take import Take
from ..take.append import append
from ..take.block_file import Settings
from ..take.from_video import save_video, take_of_video
from ..take.take import made_in
from ..types import LATENT_CHANNELS, BlockSpec, LatentShape, video_frames
from ..vae.encode_clip import encode_chunks, whole_blocks
from ..video.clip import Clip, ClipStopped
from .job import Job, new_take
from .settings import BLOCK_FRAMES, FPS, RenderSettings, machine
from .write_film import Progress


class ExtendJob(Job):
    """An order whose film begins with a video; the video is encoded when all else is checked.

    A film goes on from whole blocks: the video's first frames that are too much for them are left out.
    """

    def __init__(self, order: RenderSettings, video: Path, prompt: str, text: str, **more: Any) -> None:  # noqa: ANN401
        """prompt: of the video; text: the script of the shots behind it, whose names and style hold for both.

        more: as of `Job`, but no take. Raises what `Job` raises, and ClipStopped, with nothing left, for a stop before
        the video's blocks are kept.
        """
        self._on_progress = more.get("on_progress")
        stop = more.get("should_stop") or (lambda: False)
        script = ShotScript.parse(text)
        self._clip = Clip(video, FPS, stop)
        self._count, self._surplus = whole_blocks(self._clip.frames, BLOCK_FRAMES)
        make = partial(new_take, order, settings={"fps": FPS, "block_frames": BLOCK_FRAMES})
        take = append(take_of_video(self._count, prompt, script, make), text)
        super().__init__(order, take=take, **more)
        if self._surplus:
            seconds = self._surplus / FPS
            note = f"the first {self._surplus} frames of the video, {seconds:.2f} s, are left out: whole blocks remain"
            self.notes = (*self.notes, note)

    def _prepare(self, take: Take | None, script: ShotScript, settings: Settings) -> Take:
        assert take is not None
        take = replace(take, script=script, settings=settings, machine=machine())
        if any(made_in(take.folder)) and not _begun_for(take):
            raise FileExistsError(
                f"{take.folder} holds another film; name this one otherwise with -o, or put the shots behind that one: "
                f"`longlive extend {take.folder} SCRIPT`"
            )
        take.begin()
        stop = self._should_stop or (lambda: False)
        shape = LatentShape(1, LATENT_CHANNELS, BLOCK_FRAMES, *self._size)
        latents = encode_chunks(self._clip.pieces(self._surplus), self.mini.vae, shape, lambda: None)
        began = perf_counter()

        def show(spec: BlockSpec) -> None:
            if self._on_progress is not None:
                done, total = (video_frames(n * BLOCK_FRAMES) for n in (spec.index + 1, self._count))
                self._on_progress(Progress(spec, self._count, 1, done, total, perf_counter() - began))

        if not save_video(take, latents, stop, show):
            raise ClipStopped
        return take


def _begun_for(take: Take) -> bool:
    """Whether what is in the take's folder is this very film, as far as its video was encoded before a kill."""
    there = Take.load(take.folder)
    return there.script == take.script and there.settings == take.settings
