"""A film ordered in one value: everything is checked and opened before the first block is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from ..mini import Mini
from ..mini.text_encoder import split_words
from ..sampling.generate import Generation, generate
from ..sampling.generation import KnownLatents
from ..sampling.noise import NoiseSource, block_noise
from ..script import BlockPlan, ShotScript
from ..take import Take, TakeRun
from ..take.block_file import Settings
from ..take.from_video import check_video
from ..take.lock import TakeLock
from ..take.take import SUFFIX, made_in
from ..types import Block
from ..video import CODECS, check_path
from ..video.contact_sheet import ContactSheet
from .film_index import Encoding, PreviousFilm
from .load_model import change_linears, load_model, weights_digest
from .settings import BLOCK_FRAMES, FILES, FPS, RenderSettings, check_settings, latent_size, machine
from .write_film import Progress, Render

__all__ = ["Job", "RenderSettings"]


class Job:
    """An order that can be run. `notes` is what the user should know before; `mini` the model it runs with."""

    def __init__(
        self,
        order: RenderSettings,
        *,
        mini: Mini | None = None,
        take: Take | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Reads, loads and checks everything, and opens the film's file last. `mini` stands in for the order's model.

        take: an edited one to go on with, saved when all is checked, in place of what `order.resume` holds. on_note:
        told what is made anew while the film is made. Raises ValueError (ScriptError and CheckpointError among them)
        and OSError for whatever is wrong.
        """
        self.order = order
        if take is None and order.resume is not None:
            take = Take.load(order.resume)
        script = take.script if take is not None else _read(order.script)
        self.plan = self._plan(script)
        _check_output(order.output, order.codec)
        self._should_stop = should_stop
        with ExitStack() as held:
            if order.take or take is not None:
                held.enter_context(TakeLock(order.output.with_suffix(SUFFIX) if take is None else take.folder))
            self._open(script, take, mini, on_progress, on_note)
            self._held = held.pop_all()

    def _open(
        self,
        script: ShotScript,
        take: Take | None,
        mini: Mini | None,
        on_progress: Callable[[Progress], None] | None,
        on_note: Callable[[str], None] | None,
    ) -> None:
        """What is left to do once no other process can come between."""
        order = self.order
        self.mini = mini or load_model(order.model)
        weights = weights_digest(self.mini, order.lora) if order.take or take is not None else ""
        notes = change_linears(self.mini.model, order.fp8, order.lora, order.strength)
        self._size = latent_size(order.size, self.mini.pixel_size)
        self.notes = (*self.plan.notes, *notes, *_word_notes(script, self.mini))
        self.run_of_take: TakeRun | None = None
        self._blocks: Iterator[Block] = self._begin(None)  # which checks the settings, even where blocks are on disk
        if order.take or take is not None:
            take = self._prepare(take, script, order.settings(self._size, weights))
            self.run_of_take = self._take_run(take, on_note)
            self._blocks = self.run_of_take.blocks()
        captions = [shot.prompt for shot in script.shots]
        self.sheet = ContactSheet(self.plan.blocks, captions) if self.written.contact_sheet else None
        self.film = Render(
            self.plan,
            self.mini.vae,
            self.written.output,
            size=self._size,
            mode=order.decode,
            codec=self.written.codec,
            quality=order.quality,
            cutting=self._cutting(),
            sheet=self.sheet,
            on_progress=on_progress,
            should_stop=self._should_stop,
        )

    @property
    def take(self) -> Take | None:
        """Where the blocks are kept."""
        return None if self.run_of_take is None else self.run_of_take.take

    @property
    def written(self) -> RenderSettings:
        """The order as its file is written."""
        return self.order

    @property
    def kept(self) -> str:
        """What the film's file holds, in words."""
        frames, total = self.film.video_frames, self.plan.video_frames
        return f"{self.written.output} plays: {frames} of {total} frames, {frames / self.plan.fps:.1f} s"

    @property
    def sheet_path(self) -> Path:
        return self.written.output.with_suffix(".png")

    def run(self) -> bool:
        """Makes the film; whether it is complete. However it ends, the file plays and the sheet shows what it holds.

        Raises StageError: its cause is NotFiniteError, which names the block, OSError where a disk is full, or
        OutOfMemoryError.
        """
        try:
            return self.film.run(self._blocks)
        finally:
            self._held.close()
            if self.sheet is not None and self.film.video_frames:
                self.sheet.save(self.sheet_path)

    def _begin(self, known: KnownLatents | None) -> Generation:
        order = self.order
        return generate(
            self.mini.model,
            self.plan,
            self.mini.encode_text,
            order.memory,
            size=self._size,
            steps=order.steps,
            seed=order.seed,
            guidance=order.guidance,
            negative=order.negative,
            known=known,
            noise=self._noise(),
            should_stop=self._should_stop,
        )

    def _cutting(self) -> PreviousFilm | None:
        if self.take is None:
            return None
        return PreviousFilm(self.take, self.written.output, Encoding(self.written.codec, self.order.quality))

    def _plan(self, script: ShotScript) -> BlockPlan:
        return script.plan(FPS, BLOCK_FRAMES)

    def _noise(self) -> NoiseSource:
        return block_noise(self.order.seed)

    def _take_run(self, take: Take, on_note: Callable[[str], None] | None) -> TakeRun:
        return TakeRun(take, self._begin, on_note, snapshots=self.order.snapshots)

    def _prepare(self, take: Take | None, script: ShotScript, settings: Settings) -> Take:
        """The take on disk, ready for blocks."""
        if take is None:
            take = new_take(self.order, script, settings)
            film, board = made_in(take.folder)
            if board and not film:
                note = (
                    f"the storyboard in {take.folder} is replaced; `longlive render --resume` would have begun with it"
                )
                self.notes = (*self.notes, note)
            take.begin()
            return take
        here = machine()
        check_settings(take, {name: value for name, value in settings.items() if name not in FILES})
        other = [f"{name} {was} (now {here.get(name)})" for name, was in take.machine.items() if was != here.get(name)]
        if other:
            note = f"the take was begun with {', '.join(other)}: what is sampled now may differ in its last bits"
            self.notes = (*self.notes, note)
        check_video(take)
        take.remove_partial_files()
        take.save()
        return take


def new_take(order: RenderSettings, script: ShotScript, settings: Settings) -> Take:
    """The take of a film that is about to be made, beside its file; nothing is written."""
    output: Settings = {"name": order.output.name, "codec": order.codec, "quality": order.quality}
    return Take.new(order.output.with_suffix(SUFFIX), script, settings, machine(), output)


def _read(script: Path | None) -> ShotScript:
    if script is None:
        raise ValueError("a film needs a script, or --resume with the take of one that was begun")
    return ShotScript.read(script)


def _check_output(path: Path, codec: str) -> None:
    """Raises ValueError or OSError for a film that could never be written, before a model is loaded."""
    check_path(path, codec)
    if path.is_dir() and CODECS[codec].extension:
        raise IsADirectoryError(f"output {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"output {path}: the folder {path.parent} does not exist; make it first")


def _word_notes(script: ShotScript, mini: Mini) -> Iterator[str]:
    """Words that the model cannot read."""
    for number, shot in enumerate(script.shots, 1):
        unknown = mini.unknown_words(shot.prompt)
        if unknown:
            yield f"shot {number}: the model does not know {', '.join(unknown)}"
        words = len(split_words(shot.prompt))
        if words > mini.text.max_words:
            yield f"shot {number} has {words} words; the model reads the first {mini.text.max_words}"
