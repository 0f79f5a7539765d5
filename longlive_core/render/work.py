"""The unfinished films of a folder, which any number of processes make, also on machines that share the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..film.sample_ahead import sample_ahead
from ..mini import Mini
from ..oom import OutOfMemoryError
from ..pipeline.stages import StageError, format_error
from ..script import ShotScript
from ..take import Take, takes_in
from ..take.ahead import OpenShots, claim_shots, sampled_ahead
from ..take.block_file import write_text
from ..take.cast import Cast
from ..take.lock import TakeLock, TakenOverError
from ..take.settings import COMFYUI
from ..take.take import FILE, SUFFIX
from ..types import BLOCK_FRAMES, FPS
from ..video import film_path
from .film_index import is_whole
from .job import Job
from .load_film import load_film
from .load_model import load_model
from .prepare_take import resume_take
from .settings import RenderSettings

SCRIPT, FAILED = ".txt", ".failed"
# Errors of the machine: another one may make the film, so that they are not written into the folder.
OWN_ERRORS = (OSError, OutOfMemoryError, MemoryError)


class WorkFolder:
    """The films of a folder: scripts NAME.txt, and takes NAME.take, of which a script's film has one, too.

        work = WorkFolder(folder, given)
        for take in work.unfinished():
            lock = work.claim(take)             # None: another process makes it, or has made it
            if lock is not None:
                with lock:
                    work.job(take, lock).run()
                    work.settle(take)           # or work.fail(take, error)

    Every film is made by the process that has the lock of its take. `failed` are the reasons of films that cannot be
    made, by the folders of their takes; a film that failed is tried again when its script or its take changes, or its
    file NAME.failed is removed. `left` are those of films that only this process cannot make.
    """

    def __init__(
        self,
        folder: Path,
        given: Mapping[str, Any],
        unrecorded: Mapping[str, Any] | None = None,
        mini: Mini | None = None,
    ) -> None:
        """given: settings by name for films of scripts that are not begun; the others have theirs in their takes.

        unrecorded: settings that no take records. mini: replaces every model. Raises FileNotFoundError for no folder.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; name one with scripts (*{SCRIPT}) or takes (*{SUFFIX})")
        self.folder, self._given, self._unrecorded = folder, dict(given), dict(unrecorded or {})
        self.failed, self.left = dict[Path, str](), dict[Path, str]()
        self._mini, self._model = mini, ("", mini)
        # Films that need nothing, by what they looked like then: reading all of their blocks again takes time.
        self._settled = dict[Path, str]()

    def check(self) -> None:
        """Raises ValueError or OSError if no film could be made with the given settings, before one is tried."""
        settings = self._new(self.folder / f"film{SUFFIX}")
        loaded = load_film(settings, self._loaded(settings))
        loaded.start(ShotScript.parse("a film").plan(FPS, BLOCK_FRAMES))

    def unfinished(self) -> Iterator[Path]:
        """Yields the folders of the takes of films that are not made, begun or not, and not known to fail."""
        scripts = {path.with_suffix(SUFFIX) for path in self.folder.glob(f"*{SCRIPT}") if path.is_file()}
        for take in sorted(scripts | {path for path in takes_in(self.folder) if path != self.folder}):
            if self._is_unfinished(take):
                yield take

    def claim(self, take: Path) -> TakeLock | None:
        """Locks a take; None if another process has it or has made its film meanwhile. Raises OSError."""
        try:
            lock = TakeLock(take)
        except BlockingIOError:
            return None
        if self._is_unfinished(take):
            return lock
        lock.release()
        return None

    def job(self, take: Path, lock: TakeLock, **hooks: Any) -> Job:  # noqa: ANN401
        """The job of a film, during which the caller has the lock. hooks: those of `Job`. Raises as `Job`."""
        settings = self._resumed(take) if (take / FILE).is_file() else self._new(take)
        return Job(settings, mini=self._loaded(settings), lock=lock, **hooks)

    def claim_shots(self, take: Path) -> OpenShots | None:
        """Locks independent shots of a film that another process makes; None if all are taken."""
        try:
            film = Take.load(take)
        except (OSError, ValueError):
            return None
        return None if film.settings.get("model") == COMFYUI else claim_shots(film)

    def sample(self, shots: OpenShots, should_stop: Callable[[], bool]) -> bool:
        """Samples shots whose lock the caller has; returns false after a stop. Raises as `Job` does."""
        settings = self._resumed(shots.take.folder)
        film = load_film(settings, self._loaded(settings)).with_cast(Cast.of_take(shots.take))
        resume_take(shots.take, film.recorded, read_only=True)
        with torch.inference_mode():
            for _ in sample_ahead(shots.take, shots.run, film.start, shots.lock.check, should_stop):
                pass
        return len(sampled_ahead(shots.take, shots.run)) == len(shots.run)

    def settle(self, take: Path) -> None:
        """Ends the try of a film that is made."""
        take.with_suffix(FAILED).unlink(missing_ok=True)
        self._settled[take] = self._look(take)

    def fail(self, take: Path, error: Exception) -> str:
        """Records that a film cannot be made, in the folder unless it is a matter of this machine; returns the reason.

        The caller still has the lock. A film that was taken over did not fail.
        """
        cause = error.__cause__ if isinstance(error, StageError) and isinstance(error.__cause__, Exception) else error
        reason = format_error(error)
        if isinstance(cause, TakenOverError):
            return reason
        look = self._look(take)
        if not isinstance(cause, OWN_ERRORS):
            self.failed[take] = reason
            again = f"To try again, change {take.stem}{SCRIPT} or remove this file."
            with suppress(OSError):
                write_text(take.with_suffix(FAILED), f"{reason}\n{again}\n{look}\n")
        else:
            self.left[take] = reason
        self._settled[take] = look
        return reason

    def _is_unfinished(self, take: Path) -> bool:
        look = self._look(take)
        mended = take in self.failed and not take.with_suffix(FAILED).exists()
        if self._settled.get(take) == look and not mended:
            return False
        self.failed.pop(take, None)
        self.left.pop(take, None)
        if self._is_made(take) or self._has_failed(take, look):
            self._settled[take] = look
            return False
        return True

    def _is_made(self, take: Path) -> bool:
        """Whether a film is in its file, or is none that can be made here."""
        if not (take / FILE).is_file():
            return self._new(take).output.exists()
        try:
            loaded = Take.load(take)
        except (OSError, ValueError) as error:
            self.left[take] = format_error(error)
            return True
        return loaded.settings.get("model") == COMFYUI or is_whole(loaded)

    def _has_failed(self, take: Path, look: str) -> bool:
        with suppress(OSError):
            *reason, _, then = take.with_suffix(FAILED).read_text("utf-8").splitlines()
            if then == look:
                self.failed[take] = " ".join(reason)
                return True
        return False

    def _look(self, take: Path) -> str:
        """A fingerprint of what a film is made from: its script, and its take."""
        digest = hashlib.sha256()
        for path in (take.with_suffix(SCRIPT), take / FILE):
            with suppress(OSError):
                digest.update(path.read_bytes())
            digest.update(b"/")
        return digest.hexdigest()[:32]

    def _new(self, take: Path) -> RenderSettings:
        output = film_path(take.with_suffix(".mp4"), str(self._given.get("codec", "h264")))
        return RenderSettings.of(take.with_suffix(SCRIPT), output, self._given, **self._unrecorded)

    def _resumed(self, take: Path) -> RenderSettings:
        settings = RenderSettings.resumed(take, **self._unrecorded)
        # A checkpoint may lie elsewhere on this machine; its weights are compared with those of the take.
        if settings.model != "mini" and "model" in self._given and not Path(settings.model).exists():
            return replace(settings, model=str(self._given["model"]))
        return settings

    def _loaded(self, settings: RenderSettings) -> Mini | None:
        """The model of a film, which is loaded once for films that do not change it."""
        if self._mini is not None or settings.fp8 or settings.loras:
            return self._mini
        if self._model[0] != settings.model:
            self._model = (settings.model, load_model(settings.model))
        return self._model[1]
