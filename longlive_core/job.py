"""A film ordered in one value: everything is checked and opened before the first block is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from .contact_sheet import ContactSheet
from .engine import Generation, generate
from .latents import LatentFolder
from .memory import DEFAULT_MEMORY, MemoryConfig
from .mini import MINI_DIT, Mini, load_mini
from .mini.text import split_words
from .model import CausalWan
from .model.linears import quantise_linears
from .render import Progress, Render
from .script import ShotScript
from .types import SPACE_FACTOR, Block, round_to
from .weights import inspect_checkpoint, load_checkpoint, read_lora

FPS, BLOCK_FRAMES = 24, 8
SIZE_UNIT = 2 * SPACE_FACTOR
# What of an order changes a block's bits.
BITS = ("model", "lora", "strength", "fp8", "seed", "steps", "guidance", "negative")


@dataclass(frozen=True, slots=True)
class Order:
    """What a user asks for.

    model: "mini", the folder of a trained embedded model, or a checkpoint of its shape. lora: run beside the layers,
    with `strength`; fp8: linear layers in FP8, W8A8. size: "HxW" in pixels, None for the model's own. latents: keep
    blocks and state beside the film. resume: the folder of a film to go on with.
    """

    script: Path
    output: Path
    model: str = "mini"
    lora: Path | None = None
    strength: float = 1.0
    fp8: bool = False
    seed: int = 0
    steps: int = 4
    size: str | None = None
    memory: MemoryConfig = DEFAULT_MEMORY
    guidance: float = 1.0
    negative: str = ""
    contact_sheet: bool = False
    latents: bool = False
    resume: Path | None = None


class Job:
    """An order that can be run. `notes` is what the user should know before."""

    def __init__(
        self,
        order: Order,
        *,
        mini: Mini | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Reads, loads and checks everything, and opens the film's file last. `mini` stands in for the order's model.

        Raises ValueError (ScriptError and CheckpointError among them) and OSError for whatever is wrong.
        """
        self.order = order
        script = ShotScript.read(order.script)
        self.plan = script.plan(FPS, BLOCK_FRAMES)
        _check_output(order.output)
        mini = mini or load_model(order.model)
        notes = _change_linears(mini.model, order)
        size = latent_size(order.size, mini.pixel_size)
        self.notes = (*self.plan.notes, *notes, *_word_notes(script, mini))
        self.generation: Generation = generate(
            mini.model,
            self.plan,
            mini.encode_text,
            order.memory,
            size=size,
            steps=order.steps,
            seed=order.seed,
            guidance=order.guidance,
            negative=order.negative,
            should_stop=should_stop,
        )
        self.latents = self._latent_folder()
        self.sheet = (
            ContactSheet(self.plan.blocks, [shot.prompt for shot in script.shots]) if order.contact_sheet else None
        )
        self.film = Render(
            self.plan,
            mini.vae,
            order.output,
            size=size,
            sheet=self.sheet,
            on_progress=on_progress,
            should_stop=should_stop,
        )

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
            return self.film.run(self._blocks())
        finally:
            if self.sheet is not None and self.film.video_frames:
                self.sheet.save(self.sheet_path)

    def _blocks(self) -> Iterator[Block]:
        if self.latents is None:
            return self.generation
        done = self.plan.blocks[: self.generation.position]
        return chain(self.latents.blocks(done), self.latents.record(self.generation))

    def _latent_folder(self) -> LatentFolder | None:
        """The folder of blocks, and the run taken to where an earlier one stopped."""
        if not self.order.latents and self.order.resume is None:
            return None
        order = self.order
        # The plan's part is kept with each block, the memory's with the snapshot.
        settings = {name: str(asdict(order)[name]) for name in BITS}
        folder = LatentFolder(order.resume or order.output.with_suffix(".latents"), settings)
        if order.resume is not None:
            self.generation.restore(folder.snapshot())
            folder.check(self.plan.blocks[: self.generation.position])
        folder.prepare()
        return folder


def load_model(name: str) -> Mini:
    """The embedded model, a trained folder of it, or the embedded model with the transformer of a checkpoint.

    Raises FileNotFoundError or ValueError; a full-size checkpoint is refused before its weights are read.
    """
    if name == "mini":
        return load_mini()
    path = Path(name)
    if path.is_dir():
        return load_mini(path)
    config = inspect_checkpoint(path).config
    own = MINI_DIT
    if (config.text_dim, config.channels) != (own.text_dim, own.channels):
        raise ValueError(
            f"checkpoint {path} takes text of width {config.text_dim} (dim {config.dim}, {config.num_layers} layers); "
            f"the command line renders models of the embedded text encoder's width {own.text_dim}. "
            "LongLive 5B runs inside ComfyUI"
        )
    return replace(load_mini(), model=load_checkpoint(path, dtype=torch.float32, text_len=own.text_len))


def _change_linears(model: CausalWan, order: Order) -> tuple[str, ...]:
    """Rounds the model's layers and puts the LoRA beside them, as ordered; what was done, in words."""
    notes: list[str] = []
    if order.fp8:
        notes.append(f"fp8: {quantise_linears(model, 'fp8')} layers with weights and activations in FP8")
    if order.lora is not None:
        notes.append(f"lora beside the layers: {read_lora(order.lora).beside(model, order.strength).text()}")
    return tuple(notes)


def latent_size(size: str | None, limit: int) -> tuple[int, int]:
    """(height, width) in latent cells of "HxW" pixels; None is the largest, `limit` both ways. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", size or f"{limit}x{limit}")
    if found is None:
        raise ValueError(f"size '{size}' is not HEIGHTxWIDTH in pixels, as in {limit}x{limit}")
    height, width = int(found[1]), int(found[2])
    if any(side % SIZE_UNIT or not 0 < side <= limit for side in (height, width)):
        fit = "x".join(str(min(limit, round_to(side, SIZE_UNIT))) for side in (height, width))
        raise ValueError(
            f"size {height}x{width} (height x width): this model makes multiples of {SIZE_UNIT} up to {limit}; "
            f"try {fit}"
        )
    return height // SPACE_FACTOR, width // SPACE_FACTOR


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
