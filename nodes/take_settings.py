"""Converts a stream into a take's settings, and a take into a stream."""

from __future__ import annotations

import logging
from dataclasses import replace

import comfy.model_management
import comfy.model_patcher
import comfy.sd
from torch import Tensor

from ..longlive_core.film.film import Film
from ..longlive_core.film.sampler_settings import SamplerSettings
from ..longlive_core.film.take_store import TakeStore
from ..longlive_core.memory import DEFAULT_MEMORY
from ..longlive_core.render.settings import MEMORY_SETTINGS, latent_size
from ..longlive_core.script import ShotScript
from ..longlive_core.script.from_plan import script_of, with_lengths
from ..longlive_core.script.storyboard import storyboard_blocks
from ..longlive_core.take import Take
from ..longlive_core.take.block_file import BadBlockError, latents_digest, load_block
from ..longlive_core.take.cast import Cast
from ..longlive_core.take.settings import (
    COMFYUI,
    Setting,
    Settings,
    machine_notes,
    machine_settings,
    recorded_only,
    with_unrecorded,
)
from ..longlive_core.types import LATENT_CHANNELS, BlockSpec, LatentShape
from ..longlive_core.units import plural
from .cast_files import check_cast
from .device_lock import DeviceLock
from .film_spec import FilmSpec
from .fingerprint import text_fingerprint, weights_fingerprint
from .model import as_causal
from .sampler import check_size
from .shot_script import distinct_prompts, encode_prompts
from .types import Stream
from .vae import MiniLatents

log = logging.getLogger(__name__)

# The prefix of a recorded setting that has several values in one film.
VARIES = "along the film: "
MAX_SIDE = 4096


def recorded_settings(stream: Stream) -> Settings:
    """Returns the settings that change the bits of a stream's blocks, named as for a render on the command line.

    If the nodes of a chain differ in a setting, it has all their values.
    """
    plan, pixels = stream.film.plan, stream.spec.shape.pixels
    recorded = [member.recorded for member in stream.chain if member.recorded is not None]
    models = {id(member.spec.model): member.spec.model for member in stream.chain if member.recorded is not None}
    sampler: dict[str, Setting] = {
        name: _joined([values[name] for values in recorded]) for name in (recorded or [{}])[0]
    }
    sampler["start"] = _start(stream.chain[0])
    settings: Settings = {
        "model": COMFYUI,
        "lora": None,
        "weights": _joined([f"{COMFYUI}-{weights_fingerprint(model)}" for model in models.values()]),
        "strength": 1.0,
        "fp8": False,
        **sampler,
        "size": f"{pixels.height}x{pixels.width}",
        "fps": plan.fps,
        "block_frames": plan.block_frames,
        "text": text_fingerprint((block.prompt for block in plan.blocks), _embeddings(stream)),
        "cast": stream.cast.recorded,
    }
    return recorded_only(settings)


def machine_of_model(model: comfy.model_patcher.ModelPatcher) -> Settings:
    """Returns the machine settings of a take that the MODEL samples."""
    return machine_settings(comfy.model_management.get_torch_device_name(model.load_device))


def take_stream(
    take: Take, model: comfy.model_patcher.ModelPatcher, clip: comfy.sd.CLIP | None, node: str, title: str
) -> tuple[Stream, list[str]]:
    """Returns the film of a take as chosen, and notes; missing blocks are sampled with the take's settings.

    Raises ValueError if blocks are missing and this model and text encoder are not those of the take.
    """
    model, plan, settings = as_causal(model), take.plan, take.settings
    height, width = latent_size(str(settings.get("size")), MAX_SIDE)
    shape = LatentShape(1, LATENT_CHANNELS, plan.block_frames, height, width)
    check_size(model, shape, None)
    cast = Cast.of_take(take)
    first, sampler = take.as_begun.plan, replace(_sampler(settings, (height, width)), cast=cast.blocks)
    prompts = [*distinct_prompts(plan, sampler.negative), *(block.prompt for block in (*first.blocks, *cast.specs))]
    embeddings, device_lock = encode_prompts(clip, list(dict.fromkeys(prompts))), DeviceLock(model.load_device)
    spec = FilmSpec(model, embeddings, plan, shape, sampler, device_lock)
    film = Film(plan, spec, TakeStore(take, on_note=lambda note: log.info("LongLive: %s", note)))
    notes: list[str] = []
    if film.needs_model:
        spec.check()
        check_cast(cast, model, shape)
        text = text_fingerprint((block.prompt for block in first.blocks), embeddings)
        notes = [*_check_can_sample(take, model, text), *machine_notes(take.machine, machine_of_model(model))]
    # A film that continues this one begins with the chosen versions.
    start = f"take {take.folder.name}: {' '.join(str(shot.chosen) for shot in take.shots)}"
    recorded = {**sampler.recorded, "start": start, "storyboard": "off"}
    return Stream(film, spec, node, title, recorded=recorded, script=take.script, cast=cast), notes


def script_of_stream(stream: Stream) -> ShotScript:
    """Returns the script of a film as written or as changed while it was made, or else one made from its plan.

    Raises ValueError if the film cannot be written as a script.
    """
    plan = stream.film.plan
    for written in (stream.script, None if stream.live is None or stream.earlier is not None else stream.live.script):
        # Where the node's default length is another than that of takes, shots without a length get theirs.
        if written is None or len(written.shots) != plan.shots:
            continue
        for script in (written, with_lengths(written, plan)):
            if script.plan(plan.fps, plan.block_frames).blocks == plan.blocks:
                return script
    return script_of(plan, stream.cast.files)


def status_text(take: Take, stream: Stream, notes: list[str]) -> str:
    """Describes a take in the text on its node: folder, finished blocks and notes."""
    total = len(stream.film.plan.blocks)
    finished = f"{take.block_count()} of {plural(total, 'block')} {'was' if total == 1 else 'were'}"
    return "\n".join([f"{take.folder}", f"{finished} finished when this node ran", *notes])


def _embeddings(stream: Stream) -> dict[str, Tensor]:
    """The embeddings of every prompt of the film; prompts that a live script added are encoded again."""
    embeddings = dict(stream.spec.embeddings)
    for block in stream.film.plan.blocks:
        encode = stream.owner(block.index).spec.encode
        if block.prompt not in embeddings and encode is not None:
            embeddings[block.prompt] = encode(block.prompt)
    return embeddings


def _start(first: Stream) -> Setting:
    """The recorded beginning of the film: a start image or a given video."""
    if first.recorded is not None:
        return first.recorded["start"]
    digests = [latents_digest(block.latents) for block in first.film.finished_blocks()]
    return f"video {' '.join(digests)}"


def _joined(values: list[Setting]) -> Setting:
    """The value of a setting for the whole film, or a text with all its values."""
    if len(set(values)) == 1:
        return values[0]
    return VARIES + ", ".join(map(str, values)) if values else None


def _number(settings: Settings, name: str, usual: float) -> float:
    value = settings.get(name)
    return usual if value is None or isinstance(value, str) else value


def _sampler(settings: Settings, size: tuple[int, int]) -> SamplerSettings:
    """The settings that a take's film is sampled with. size: (height, width) in latent cells."""
    settings = with_unrecorded(settings)
    names = [name for name in MEMORY_SETTINGS if name in settings and not _varies(settings[name])]
    return SamplerSettings(
        size,
        replace(DEFAULT_MEMORY, **{name: settings[name] for name in names}),
        int(_number(settings, "seed", 0)),
        int(_number(settings, "steps", 4)),
        _number(settings, "guidance", 1.0),
        str(settings.get("negative") or ""),
        seam="align" if settings["seam"] == "align" else "plain",
    )


def _varies(value: Setting) -> bool:
    return isinstance(value, str) and value.startswith(VARIES)


def _check_can_sample(take: Take, model: comfy.model_patcher.ModelPatcher, text: str) -> list[str]:
    """Returns notes on blocks that will be sampled for the take. Raises ValueError if they would not fit the take.

    text: the fingerprint of the take's first prompts by the present text encoder.
    """
    settings, name = take.settings, take.folder.name
    if mixed := [key for key, value in settings.items() if _varies(value)]:
        raise ValueError(
            f"{name} was made by nodes with different settings of {', '.join(mixed)}, so no block of it can be sampled "
            "here: queue the workflow that made it, and change the shot there"
        )
    if settings.get("storyboard", "off") == "only":
        raise ValueError(f"{name} is a storyboard, whose blocks only its own workflow can sample: queue that workflow")
    if settings.get("storyboard", "off") == "first" and (lost := _lost_opening(take)) is not None:
        raise ValueError(
            f"{name} has no block {lost.index}, the storyboard's block of shot {lost.shot + 1}, which only the "
            "workflow of the take can sample: queue that workflow with storyboard first"
        )
    if settings.get("model") != COMFYUI:
        if not isinstance(model.model.latent_format, MiniLatents):
            raise ValueError(f"{name} was made with LongLive Mini on the command line: connect LongLive Mini")
        made_with = ", ".join(f"{key} {settings.get(key)}" for key in ("model", "lora", "fp8"))
        return [f"made on the command line with {made_with}; whether this MODEL is the same cannot be checked"]
    if settings.get("weights") != f"{COMFYUI}-{weights_fingerprint(model)}":
        raise ValueError(
            f"{name} was made with other weights: connect the MODEL that made it, with the same LoRAs and precision"
        )
    if settings.get("text") != text:
        raise ValueError(f"{name} was made with another text encoder: connect the CLIP that made it")
    return []


def _lost_opening(take: Take) -> BlockSpec | None:
    """The first missing or damaged block of the storyboard, of a shot whose first version is chosen."""
    for spec in storyboard_blocks(take.plan):
        if take.shots[spec.shot].chosen == 0:
            try:
                load_block(take.path(spec), spec, take.settings)
            except (FileNotFoundError, BadBlockError):
                return spec
    return None
