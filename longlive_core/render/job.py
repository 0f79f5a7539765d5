"""A render job: checks and opens everything before the first block, then makes the film."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from ..film.block_store import BlockStore
from ..film.film import Film
from ..film.pace import Pace
from ..film.sampler_settings import storyboard_noise
from ..film.take_store import TakeStore
from ..mini import Mini
from ..mini.text_encoder import split_words
from ..parallel import Leader
from ..sampling import NoiseSource, block_noise
from ..script import ShotScript
from ..script.cast import find_cast
from ..script.prompt_folder import read_script
from ..script.reading import COMMENT
from ..script.storyboard import storyboard_plan
from ..take import Take
from ..take.ahead import AheadShots
from ..take.cast import Cast
from ..take.lock import TakeLock, TakenOverError
from ..take.pace import save_pace
from ..take.settings import Settings
from ..take.storyboard import with_storyboard
from ..types import BLOCK_FRAMES, FPS
from ..units import plural
from ..video import CODECS, Audio, check_path
from ..video.contact_sheet import ContactSheet
from ..video.wave_file import read_wave
from .film_index import Encoding, PreviousFilm
from .given_video import GivenVideo
from .load_film import LoadedFilm, load_film
from .prepare_take import begin_take, check_film_is_free, lock_take, new_take, resume_take, take_folder
from .settings import RenderSettings
from .write_film import Progress, Render

__all__ = ["Job", "RenderSettings"]


class Job:
    """Renders one film from its settings into a file.

    `notes` are messages to show before `run`. `film` yields the blocks, `render` writes them, `mini` is the model, and
    `output_settings` are the settings of the written file, which for a storyboard is a preview. `loaded` is what
    samples the film.
    """

    def __init__(
        self,
        settings: RenderSettings,
        *,
        mini: Mini | None = None,
        script: ShotScript | None = None,
        take: Take | None = None,
        earlier: Take | None = None,
        video: GivenVideo | None = None,
        like: Job | None = None,
        storyboard: bool = False,
        leader: Leader | None = None,
        lock: TakeLock | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Reads, loads and checks everything, and opens the film's file last.

        mini: replaces the model of the settings. script: replaces its script. take: an edited take to continue instead
        of `settings.resume`; it is saved after all checks. earlier: the take of another film, whose first blocks a
        new take takes over where they are the same. video: begins the film and is encoded here. like: a job whose
        settings differ in seed and files only; its model is used. storyboard: makes only the first block of every shot
        and writes FILM.preview.mp4 and .png; a film that is resumed from the take begins its shots with these blocks,
        bit for bit. leader: of ranks that share the work. lock: of the take, if the caller has it and releases it.
        on_note: receives notes while the film is made.

        Raises ValueError (including ScriptError and CheckpointError) and OSError for invalid settings and files, and
        ClipStopped after a stop while the video is encoded; nothing is left on disk then.
        """
        if storyboard and not settings.take:
            raise ValueError("a preview is stored in a take, so that the film can begin with it; leave --no-take out")
        self.settings, self._storyboard, self._should_stop, self._earlier = settings, storyboard, should_stop, earlier
        self._on_progress, self._on_note, self._like, self._leader = on_progress, on_note, like, leader
        self.output_settings = _preview(settings) if storyboard else settings
        if take is None and settings.resume is not None:
            take = Take.load(settings.resume)
        known = video.take if video is not None else take
        if script is None:
            script = known.script if known is not None else _read_script(settings.script)
        self._film_plan = script.plan(FPS, BLOCK_FRAMES)
        remarks = (
            [] if known is not None or like is not None else script.reading.lines((*self._film_plan.notes, COMMENT))
        )
        self._remarks = [remark.partition(": ")[2] for remark in remarks]  # without "note" or "warning"
        self.plan = storyboard_plan(self._film_plan) if storyboard else self._film_plan
        settings.memory.check_recalled(self._film_plan.blocks, BLOCK_FRAMES)
        _check_output(settings.output, settings.codec)
        if take is not None:
            check_film_is_free(take, settings.output)
        self._has_take, self._read_only = settings.take or known is not None, False
        with ExitStack() as stack:
            if self._has_take:
                if lock is None:
                    lock = lock_take(take_folder(settings) if take is None else take.folder, take)
                    stack.enter_context(lock or nullcontext())
                self._read_only = lock is None
            self._check = None if lock is None else lock.check
            self._ahead: AheadShots | None = None
            self._open(script, take, video, mini)
            if self._ahead is not None:
                stack.callback(self._ahead.close)
            self._exit_stack = stack.pop_all()
        self._has_run = False

    @property
    def take(self) -> Take | None:
        """The take that stores the blocks; None for a render without a take."""
        return self._store.take if isinstance(self._store, TakeStore) else None

    @property
    def status(self) -> str:
        """A line on how much of the film is in its file."""
        frames, total = self.render.video_frames, self.plan.video_frames
        return (
            f"{self.output_settings.output} plays: {frames} of {plural(total, 'frame')}, {frames / self.plan.fps:.1f} s"
        )

    @property
    def sheet_path(self) -> Path:
        """The path of the contact sheet."""
        return self.output_settings.output.with_suffix(".png")

    def run(self) -> bool:
        """Makes the film; returns whether it is complete. The file plays afterwards, whether or not it is complete.

        Raises StageError, whose cause is a NotFiniteError that names the block, an OSError such as a full disk, or an
        OutOfMemoryError.
        """
        pace, self._has_run = Pace(), True
        try:
            return self.render.run(self.film.run(pace.step, self._should_stop))
        finally:
            with self._exit_stack, suppress(TakenOverError):
                if self._check is not None:
                    self._check()
                self._save_pace(pace)
                if self.sheet is not None and self.render.video_frames:
                    self.sheet.save(self.sheet_path)

    def close(self) -> None:
        """Ends a job that was not run: its blocks stay in the take, and its file is as it was before."""
        if not self._has_run:
            with self._exit_stack:
                self.render.discard()

    def _open(self, script: ShotScript, take: Take | None, video: GivenVideo | None, mini: Mini | None) -> None:
        """Does the part of the constructor that needs the take to be locked."""
        settings = self.settings
        folder = Path() if settings.script is None else settings.script.parent
        self._cast = Cast.read(script, lambda file: find_cast(file, folder)) if take is None else Cast.of_take(take)
        loaded = self.loaded = self._load(mini)
        self.mini, self._size = loaded.mini, loaded.sampler.size
        self.notes = (*self._remarks, *self.plan.notes, *loaded.notes, *_unknown_word_notes(script, self.mini))
        if self._like is not None:
            self.notes = ()
        loaded.start(self.plan)  # raises for invalid settings even if every block is stored
        self._store = BlockStore()
        if self._has_take:
            take, notes = self._prepare_take(take, video, script, loaded.recorded)
            self.notes = (*self.notes, *notes)
            # The KV cache before an independent shot is that of the global sink, which is soon made again.
            independent = settings.memory.independent_shots
            if independent and not self._storyboard and not self._read_only:
                self._ahead = AheadShots(take, self._should_stop)
            self._store = TakeStore(
                take,
                on_note=self._on_note,
                snapshots=settings.snapshots and not (self._storyboard or self._read_only or independent),
                storyboard=self._storyboard,
                is_locked=True,
                check=self._check,
                ahead=self._ahead,
            )
        self.film = Film(self.plan, loaded.start, self._store)
        captions = [shot.prompt for shot in script.shots]
        self.sheet = ContactSheet(self.plan.blocks, captions) if self.output_settings.contact_sheet else None
        self.render = Render(
            self.plan,
            self.mini.vae,
            self.output_settings.output,
            size=self._size,
            mode=settings.decode,
            codec=self.output_settings.codec,
            quality=settings.quality,
            audio=self._sound(),
            previous=self._previous_film(),
            sheet=self.sheet,
            cuda_graphs=settings.cuda_graphs,
            on_progress=self._on_progress,
            should_stop=self._should_stop,
            check=self._check,
        )

    def _load(self, mini: Mini | None) -> LoadedFilm:
        """Loads the model, unless the job that this one is like has done so."""
        if self._like is not None:
            return self._like.loaded.with_seed(self.settings.seed, self._noise())
        fingerprint = self._has_take or bool(self._cast.cards)
        loaded = load_film(self.settings, mini, fingerprint=fingerprint, noise=self._noise(), leader=self._leader)
        return loaded.with_cast(self._cast)

    def _save_pace(self, pace: Pace) -> None:
        """Stores the pace of this run for estimates, if it sampled anything, and for this film only."""
        if self.take is not None and self.film.batch is None and pace.blocks_per_second:
            with suppress(OSError):  # an estimate is not worth an error of its own
                save_pace(self.take.folder, 1 / pace.blocks_per_second)

    def _noise(self) -> NoiseSource | None:
        """The noise of a storyboard, which is that of its film; None for a film."""
        return storyboard_noise(self._film_plan, block_noise(self.settings.seed)) if self._storyboard else None

    def _prepare_take(
        self, take: Take | None, video: GivenVideo | None, script: ShotScript, recorded: Settings
    ) -> tuple[Take, list[str]]:
        """Prepares the take on disk for its blocks; returns it with notes for the user."""
        if video is not None:
            take = video.begin_take(recorded)
            self._cast.save(take)
            video.encode(take, self.mini.vae, self._size, self._on_progress, self._should_stop)
            return take, video.notes
        if take is not None:
            notes = resume_take(take, recorded, read_only=self._read_only)
        else:
            take = new_take(self.settings, script, recorded)
            notes = begin_take(take, self._earlier, storyboard=self._storyboard)
            self._cast.save(take)
        if self._storyboard:
            take = with_storyboard(take)
            take.save()
        return take, notes

    def _sound(self) -> Audio | None:
        """The sound of the film, which is that of a given video; a storyboard has none."""
        if self.take is None or self._storyboard or not self.take.sound.is_file():
            return None
        return read_wave(self.take.sound)

    def _previous_film(self) -> PreviousFilm | None:
        """The previous file of the film; None for a storyboard, because the take's index describes the film only, and
        for a take that cannot be written."""
        if self.take is None or self._storyboard or self._read_only:
            return None
        return PreviousFilm(
            self.take, self.output_settings.output, Encoding(self.output_settings.codec, self.settings.quality)
        )


def _preview(settings: RenderSettings) -> RenderSettings:
    """The settings of a storyboard's preview file."""
    output = settings.output.with_suffix(".preview.mp4")
    return replace(settings, output=output, codec="h264", contact_sheet=True)


def _read_script(script: Path | None) -> ShotScript:
    if script is None:
        raise ValueError("a film needs a script, or --resume with the take of one that was begun")
    return read_script(script)


def _check_output(path: Path, codec: str) -> None:
    """Raises ValueError or OSError if the film could never be written, before a model is loaded."""
    check_path(path, codec)
    if path.is_dir() and CODECS[codec].extension:
        raise IsADirectoryError(f"output {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"output {path}: the folder {path.parent} does not exist; make it first")


def _unknown_word_notes(script: ShotScript, mini: Mini) -> Iterator[str]:
    """Yields a note for each shot with unknown words or too many words for the text encoder."""
    for number, shot in enumerate(script.shots, 1):
        unknown = mini.unknown_words(shot.prompt)
        if unknown:
            yield f"shot {number}: the model does not know {', '.join(unknown)}"
        words = len(split_words(shot.prompt))
        if words > mini.text.max_words:
            yield f"shot {number} has {plural(words, 'word')}; the model reads the first {mini.text.max_words}"
