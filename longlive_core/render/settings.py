"""The settings of one render, and the part of them that its take records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..film.sampler_settings import SamplerSettings
from ..memory import DEFAULT_MEMORY, MemoryConfig
from ..model.fp8_gate import AttentionFormat
from ..pipeline.stages import Mode
from ..sampling import Seam
from ..take import Take
from ..take.settings import COMFYUI, Settings, recorded_only, with_unrecorded
from ..types import BLOCK_FRAMES, FPS, SPACE_FACTOR, round_to
from ..video import film_path
from ..weights import LoraFile

SIZE_UNIT = 2 * SPACE_FACTOR
# The names of the settings of the KV cache.
MEMORY_SETTINGS = tuple(field.name for field in fields(MemoryConfig))
# Settings that name a file. A file may move, so that the fingerprint of the weights is compared instead.
FILE_SETTINGS = ("model", "lora")
# Settings of the film's file, which do not change the blocks.
OUTPUT_SETTINGS = ("codec", "quality")


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """The settings of one render.

    script: the path of a new film's script; None with `resume`. resume: the take of a film to continue, which has
    its own script. model: "mini", a folder that `longlive train mini` made, or a checkpoint of its shape. loras:
    LoRAs that run beside the layers. strength: that of LoRAs which have none of their own. fp8: run linear layers
    with FP8 weights and activations. attention: see `choose_attention`. size: "HxW" in pixels; None for the model's
    largest. seam: see `generate`; None is `align` for an embedded model and `plain` for a checkpoint. codec, quality:
    of the film's file, names in `video.CODECS` and `video.QUALITIES`. decode: when blocks are decoded, see `Mode`.
    decode_device: the torch device of the VAE; None for that of the model. split_guidance: see `SplitModel`.
    cuda_graphs: see `SamplerSettings`; the decoder has them, too. take: store every block in a take beside the film.
    snapshots: also store the KV cache at the beginning of every shot, so that a retake starts without rebuilding it.
    """

    script: Path | None
    output: Path
    model: str = "mini"
    loras: tuple[LoraFile, ...] = ()
    strength: float = 1.0
    fp8: bool = False
    attention: AttentionFormat = "usual"
    seed: int = 0
    steps: int = 4
    size: str | None = None
    memory: MemoryConfig = DEFAULT_MEMORY
    guidance: float = 1.0
    negative: str = ""
    seam: Seam | None = None
    codec: str = "h264"
    quality: str = "high"
    contact_sheet: bool = False
    decode: Mode = "async"
    decode_device: str | None = None
    split_guidance: bool = False
    cuda_graphs: bool = False
    take: bool = True
    snapshots: bool = True
    resume: Path | None = None

    @classmethod
    def of(cls, script: Path | None, output: Path, settings: Mapping[str, Any], **more: Any) -> RenderSettings:  # noqa: ANN401
        """Makes settings from values by name, including fields of `MemoryConfig`; the others have their defaults.

        settings: `lora` is a list of FILE or FILE:STRENGTH, or a text of such lines, as a take records it.
        """
        memory = replace(DEFAULT_MEMORY, **{name: settings[name] for name in MEMORY_SETTINGS if name in settings})
        names = {field.name for field in fields(cls)} & set(settings)
        result = cls(script, output, memory=memory, **{name: settings[name] for name in names}, **more)
        lora = settings.get("lora") or ()
        texts: Sequence[str] = lora.splitlines() if isinstance(lora, str) else lora
        return replace(result, loras=tuple(LoraFile.parse(text, result.strength) for text in texts))

    @classmethod
    def resumed(
        cls,
        folder: Path,
        output: Path | None = None,
        given: Settings | None = None,
        **more: Any,  # noqa: ANN401
    ) -> RenderSettings:
        """The settings of a take's film, written to the take's own file or to `output`.

        given: settings that the user repeats; files may have moved, the other settings must equal the take's. more:
        fields that a take does not record, such as `decode`. Raises ValueError that names each difference, and as
        `Take.load`.
        """
        take, given = Take.load(folder), given or {}
        if take.settings.get("model") == COMFYUI:
            raise ValueError(f"{folder} was made in ComfyUI: open it there with LongLive Load Take or LongLive Retake")
        may_differ = (*FILE_SETTINGS, *OUTPUT_SETTINGS)
        check_settings(take, {name: value for name, value in given.items() if name not in may_differ})
        moved = {name: given[name] for name in may_differ if name in given}
        written = {name: take.output[name] for name in OUTPUT_SETTINGS if name in take.output}
        settings = {**with_unrecorded(take.settings), **written, **moved}
        film = output or (film_path(take.film, str(given["codec"])) if "codec" in given else take.film)
        return cls.of(None, film, settings, resume=folder, **more)

    @property
    def sampled_seam(self) -> Seam:
        """The setting `seam` of the film's blocks; see the field `seam`."""
        return self.seam or ("plain" if names_checkpoint(self.model) else "align")

    @property
    def _recorded_loras(self) -> str | None:
        """The path of one LoRA, whose strength has its own setting, or a line FILE:STRENGTH for each of several."""
        paths = [str(lora.path.resolve()) for lora in self.loras]
        if len(paths) > 1:
            paths = [f"{path}:{lora.strength!r}" for path, lora in zip(paths, self.loras, strict=True)]
        return "\n".join(paths) or None

    def recorded(self, sampler: SamplerSettings, weights: str) -> Settings:
        """Returns the settings that the film's take records. weights: the fingerprint of the model and the LoRA."""
        model = self.model if self.model == "mini" else str(Path(self.model).resolve())
        settings: Settings = {
            "model": model,
            "lora": self._recorded_loras,
            "weights": weights,
            "strength": self.loras[0].strength if len(self.loras) == 1 else self.strength,
            "fp8": self.fp8,
            "attention": self.attention,
            **sampler.recorded,
            "size": "x".join(str(SPACE_FACTOR * side) for side in sampler.size),
            "fps": FPS,
            "block_frames": BLOCK_FRAMES,
        }
        return recorded_only(settings)


def names_checkpoint(model: str) -> bool:
    """Whether the setting `model` names a checkpoint: not "mini", nor a folder that `longlive train mini` made."""
    path = Path(model)
    return path.is_file() or (path.is_dir() and not (path / "transformer.safetensors").is_file())


def check_settings(take: Take, settings: Settings) -> None:
    """Raises ValueError that names each setting that differs from the take's."""
    recorded = with_unrecorded(take.settings)
    differences = [
        f"{name} was {recorded.get(name)}, now {value}"
        for name, value in settings.items()
        if recorded.get(name) != value
    ]
    if differences:
        raise ValueError(
            f"{take.folder} has other settings: {'; '.join(differences)}; leave these out to continue it, or "
            "render a new film"
        )


def latent_size(size: str | None, limit: int) -> tuple[int, int]:
    """Converts "HxW" in pixels into (height, width) in latent cells; None is `limit` x `limit`. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", size or f"{limit}x{limit}")
    if match is None:
        raise ValueError(f"size '{size}' is not HEIGHTxWIDTH in pixels, as in {limit}x{limit}")
    height, width = int(match[1]), int(match[2])
    if any(side % SIZE_UNIT or not 0 < side <= limit for side in (height, width)):
        fit = "x".join(str(min(limit, round_to(side, SIZE_UNIT))) for side in (height, width))
        raise ValueError(
            f"size {height}x{width} (height x width): this model makes multiples of {SIZE_UNIT} up to {limit}; "
            f"try {fit}"
        )
    return height // SPACE_FACTOR, width // SPACE_FACTOR
