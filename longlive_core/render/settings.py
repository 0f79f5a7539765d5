"""What a user asks for, as one value, and the settings of it that change a block's bits."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..memory import DEFAULT_MEMORY, MemoryConfig
from ..pipeline.stages import Mode
from ..take import Take
from ..take.block_file import Setting, Settings
from ..types import SPACE_FACTOR, round_to
from ..video import film_path

FPS, BLOCK_FRAMES = 24, 8
SIZE_UNIT = 2 * SPACE_FACTOR
MEMORY = tuple(field.name for field in fields(MemoryConfig))
# Files can be moved; their bytes are compared instead.
FILES = ("model", "lora")
# What a film's file is, and no block of it.
OUTPUT = ("codec", "quality")
# The model of a take that was made in ComfyUI, which does not tell a MODEL's file.
COMFYUI = "ComfyUI"


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """What a user asks for.

    script: of a new film; None with `resume`, the take of a film to go on with, which has its own. model: "mini", the
    folder of a trained embedded model, or a checkpoint of its shape. lora: run beside the layers, with `strength`;
    fp8: linear layers in FP8, W8A8. size: "HxW" in pixels, None for the model's own. codec and quality: of the film's
    file, names in `video.CODECS` and `video.QUALITIES`. decode: how it goes along with sampling, see `Mode`. take: keep
    every block in a take beside the film; snapshots: and the memory at the beginning of every shot, from which a retake
    begins at once.
    """

    script: Path | None
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
    codec: str = "h264"
    quality: str = "high"
    contact_sheet: bool = False
    decode: Mode = "async"
    take: bool = True
    snapshots: bool = True
    resume: Path | None = None

    @classmethod
    def of(cls, script: Path | None, output: Path, settings: Mapping[str, Any], **more: Any) -> RenderSettings:  # noqa: ANN401
        """The order of named settings, those of the memory among them; what is not named is as usual."""
        memory = replace(DEFAULT_MEMORY, **{name: settings[name] for name in MEMORY if name in settings})
        own = {field.name for field in fields(cls)} & set(settings)
        order = cls(script, output, memory=memory, **{name: settings[name] for name in own}, **more)
        return replace(order, lora=None if order.lora is None else Path(order.lora))

    @classmethod
    def resumed(
        cls,
        folder: Path,
        output: Path | None = None,
        given: Settings | None = None,
        **more: Any,  # noqa: ANN401
    ) -> RenderSettings:
        """The order of a take, to be written to the take's own film or another.

        given: settings that the user names again; a file may lie elsewhere now, the rest must be those of the take.
        more: fields that are no settings, as `decode`.
        Raises ValueError that names each difference, and what `Take.load` raises.
        """
        take, given = Take.load(folder), given or {}
        if take.settings.get("model") == COMFYUI:
            raise ValueError(f"{folder} was made in ComfyUI: LongLive Load Take opens it there, or LongLive Retake")
        check_settings(take, {name: value for name, value in given.items() if name not in (*FILES, *OUTPUT)})
        moved = {name: given[name] for name in (*FILES, *OUTPUT) if name in given}
        written = {name: take.output[name] for name in OUTPUT if name in take.output}
        settings = {**take.settings, **written, **moved}
        film = output or (film_path(take.film, str(given["codec"])) if "codec" in given else take.film)
        return cls.of(None, film, settings, resume=folder, **more)

    def settings(self, size: tuple[int, int], weights: str) -> Settings:
        """What changes a block's bits. size: (height, width) in latent cells; weights: their fingerprint."""
        names = ("strength", "fp8", "seed", "steps", "guidance", "negative")
        model = self.model if self.model == "mini" else str(Path(self.model).resolve())
        return {
            "model": model,
            "lora": None if self.lora is None else str(self.lora.resolve()),
            "weights": weights,
            **{name: getattr(self, name) for name in names},
            "size": "x".join(str(SPACE_FACTOR * side) for side in size),
            "fps": FPS,
            "block_frames": BLOCK_FRAMES,
            **asdict(self.memory),
        }


def check_settings(take: Take, settings: Settings) -> None:
    """Raises ValueError that names each setting that is not the take's."""
    differences = [
        f"{name} was {take.settings.get(name)}, now {value}"
        for name, value in settings.items()
        if take.settings.get(name) != value
    ]
    if differences:
        raise ValueError(
            f"{take.folder} is another film: {'; '.join(differences)}; leave these out to go on with it, or "
            "render a new film"
        )


def machine() -> Settings:
    """Where bits come from besides the settings: what is sampled elsewhere may differ in the last one."""
    facts: dict[str, Setting] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
    }
    return facts


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
