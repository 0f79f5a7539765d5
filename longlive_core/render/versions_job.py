"""Makes several versions of one shot of a take, with a picture of each; the film is not written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from time import perf_counter

from torch import Tensor

from ..film.film import Film
from ..film.film_batch import FilmBatch
from ..film.shot_versions import ShotVersions
from ..mini import Mini
from ..parallel import Leader
from ..pipeline.decode import decode
from ..pipeline.stills import still_pieces
from ..take import Take
from ..take.cast import Cast
from ..take.history import read_blocks
from ..take.lock import TakeLock
from ..take.retake import Mode
from ..take.stills import save_still
from ..types import Block
from ..vae import DecodeStream, WanVAE
from ..video.contact_sheet import Cell, draw_sheet, thumbnail
from .load_film import load_film
from .prepare_take import resume_take
from .rank_versions import VersionScore
from .settings import RenderSettings
from .write_film import Progress


class VersionsJob:
    """Makes several versions of a shot; see `ShotVersions`.

    `notes` are messages to show before `run`. `made` are the numbers of the versions that are complete, `sheet_path` is
    a picture of all versions of this run beside the film as chosen.
    """

    def __init__(
        self,
        settings: RenderSettings,
        number: int,
        count: int,
        *,
        prompt: str | None = None,
        mode: Mode = "ripple",
        mini: Mini | None = None,
        leader: Leader | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """settings: those of the take that they resume. number: of the shot, from 1. The others are of `Job`.

        Raises ValueError and OSError as `Job` and `ShotVersions`; nothing is changed then.
        """
        if settings.resume is None:
            raise ValueError("versions of a shot need the take of a film: name its FILM.take")
        self.settings, self._on_progress, self._on_note = settings, on_progress, on_note
        self._should_stop = should_stop or (lambda: False)
        self.made, self._began, self._pictures = list[int](), 0.0, dict[int, Tensor]()
        self.sheet_path = settings.output.with_suffix(f".shot{number}.png")
        with ExitStack() as stack:
            lock = stack.enter_context(TakeLock(settings.resume))
            take = Take.load(settings.resume)
            self.versions = ShotVersions(take, number, count, prompt=prompt, mode=mode, check=lock.check)
            self._film = load_film(settings, mini, leader=leader).with_cast(Cast.of_take(take))
            at_once = self._film.at_once(len(self.versions.numbers), len(take.plan.blocks))
            self.batch = FilmBatch(self._film.start, at_once.fits, on_note)
            notes = [at_once.text] if at_once.wanted > 1 else []
            self.notes = (*self._film.notes, *notes, *resume_take(take, self._film.recorded))
            self._exit_stack = stack.pop_all()

    @property
    def take(self) -> Take:
        """The take with the versions so far."""
        return self.versions.take

    @property
    def vae(self) -> WanVAE:
        """What decodes the versions."""
        return self._film.mini.vae

    def run(self) -> bool:
        """Makes the versions and their sheet; returns whether all are complete. What is finished stays, stopped or not.

        Raises NotFiniteError, OSError and OutOfMemoryError.
        """
        self._began = perf_counter()
        with self._exit_stack:
            self._pictures.update(self._pictures_of_film())
            films = self.versions.films(
                self._film.start,
                on_note=self._on_note,
                snapshots=self.settings.snapshots,
                prepare=lambda film: self.batch.add(film, self._film.sampler.noise_source),
            )
            for done, (version, film) in enumerate(films):
                for picture in self._decoded(self._reported(film, done)):
                    save_still(self.take, self.versions.index, version, picture)
                    self._pictures[version] = picture
                if film.complete:
                    self.made.append(version)
            self.save_sheet()
        return len(self.made) == len(self.versions.numbers)

    def _pictures_of_film(self) -> Iterator[tuple[int, Tensor]]:
        """The picture of the version that is chosen, if its first block is stored and it is not one to be made."""
        chosen = self.take.shots[self.versions.index].chosen
        if chosen not in self.versions.numbers:
            for picture in self._decoded(block for block, _ in read_blocks(self.take)):
                yield chosen, picture

    def _decoded(self, blocks: Iterable[Block]) -> Iterator[Tensor]:
        """Takes all blocks, and yields a picture `[H, W, 3]` uint8 of the shot."""
        pieces = still_pieces(blocks, self.versions.first.index)
        for frame in decode(pieces, DecodeStream(self._film.mini.vae), self._should_stop):
            if frame.last and frame.frames is not None:
                yield frame.frames.wait()[-1]

    def _reported(self, film: Film, done: int) -> Iterator[Block]:
        """Runs a film, and reports the sampled blocks of the shot as progress of all versions."""
        start = self.versions.first.video_start
        count, shot = len(self.versions.numbers), film.plan.video_frames - start
        for block in film.run(None, self._should_stop):
            if block.shot == self.versions.index and self._on_progress is not None:
                frames = done * shot + block.spec.video_start + block.spec.video_frames - start
                blocks, shots = len(film.plan.blocks), film.plan.shots
                seconds = perf_counter() - self._began
                self._on_progress(Progress(block.spec, blocks, shots, frames, count * shot, seconds))
            yield block

    def save_sheet(self, scores: Mapping[int, VersionScore] | None = None) -> None:
        """Writes the sheet of the versions that have a picture.

        scores: of versions, which come in their order, behind the one in the film and before those without.
        """
        shot = self.take.shots[self.versions.index]
        order = dict.fromkeys((shot.chosen, *(scores or ()), *self._pictures))
        cells = list[Cell]()
        for number in (number for number in order if number in self._pictures):
            seed = shot.versions[number].seed
            title = f"Version {number}{' (in the film)' if number == shot.chosen else ''}, "
            title += "the film's seed" if seed is None else f"seed {seed}"
            title += f", continuity {scores[number].text}" if scores is not None and number in scores else ""
            cells.append(Cell(thumbnail(self._pictures[number]), title, shot.versions[number].text))
        if cells:
            draw_sheet(cells).save(self.sheet_path)
