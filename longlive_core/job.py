"""A film ordered in one value: everything is checked and opened before the first block is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .contact_sheet import ContactSheet
from .engine import Generation, generate
from .generation import KnownLatents
from .loading import change_linears, load_model, weights_digest
from .mini import Mini
from .mini.text import split_words
from .order import BLOCK_FRAMES, FILES, FPS, Order, check_settings, latent_size, machine
from .render import Progress, Render
from .script import ShotScript
from .take import Take, TakeRun
from .take.blocks import Settings
from .take.take import SUFFIX
from .types import Block

__all__ = ["Job", "Order"]


class Job:
    """An order that can be run. `notes` is what the user should know before; `mini` the model it runs with."""

    def __init__(
        self,
        order: Order,
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
        self.plan = script.plan(FPS, BLOCK_FRAMES)
        _check_output(order.output)
        self.mini = mini or load_model(order.model)
        weights = weights_digest(self.mini, order.lora) if order.take or take is not None else ""
        notes = change_linears(self.mini.model, order.fp8, order.lora, order.strength)
        self._size = latent_size(order.size, self.mini.pixel_size)
        self._should_stop = should_stop
        self.notes = (*self.plan.notes, *notes, *_word_notes(script, self.mini))
        self.run_of_take: TakeRun | None = None
        self._blocks: Iterator[Block] = self._begin(None)  # which checks the settings, even where blocks are on disk
        if order.take or take is not None:
            take = self._prepare(take, script, order.settings(self._size, weights))
            self.run_of_take = TakeRun(take, self._begin, on_note, snapshots=order.snapshots)
            self._blocks = self.run_of_take.blocks()
        self.sheet = (
            ContactSheet(self.plan.blocks, [shot.prompt for shot in script.shots]) if order.contact_sheet else None
        )
        self.film = Render(
            self.plan,
            self.mini.vae,
            order.output,
            size=self._size,
            sheet=self.sheet,
            on_progress=on_progress,
            should_stop=should_stop,
        )

    @property
    def take(self) -> Take | None:
        """Where the blocks are kept."""
        return None if self.run_of_take is None else self.run_of_take.take

    @property
    def kept(self) -> str:
        """What the film's file holds, in words."""
        frames, total = self.film.video_frames, self.plan.video_frames
        return f"{self.order.output} plays: {frames} of {total} frames, {frames / self.plan.fps:.1f} s"

    @property
    def sheet_path(self) -> Path:
        return self.order.output.with_suffix(".png")

    def run(self) -> bool:
        """Makes the film; whether it is complete. However it ends, the file plays and the sheet shows what it holds.

        Raises NotFiniteError that names the block, and OSError where a disk is full.
        """
        try:
            return self.film.run(self._blocks)
        finally:
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
            should_stop=self._should_stop,
        )

    def _prepare(self, take: Take | None, script: ShotScript, settings: Settings) -> Take:
        """The take on disk, ready for blocks."""
        here = machine()
        if take is None:
            take = Take.new(self.order.output.with_suffix(SUFFIX), script, settings, here)
            take.begin()
            return take
        check_settings(take, {name: value for name, value in settings.items() if name not in FILES})
        other = [f"{name} {was} (now {here.get(name)})" for name, was in take.machine.items() if was != here.get(name)]
        if other:
            note = f"the take was begun with {', '.join(other)}: what is sampled now may differ in its last bits"
            self.notes = (*self.notes, note)
        take.remove_partial_files()
        take.save()
        return take


def _read(script: Path | None) -> ShotScript:
    if script is None:
        raise ValueError("a film needs a script, or --resume with the take of one that was begun")
    return ShotScript.read(script)


def _check_output(path: Path) -> None:
    """Raises ValueError or OSError for a film that could never be written, before a model is loaded."""
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"output {path}: a film is an mp4; name it {path.with_suffix('.mp4')}")
    if path.is_dir():
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
