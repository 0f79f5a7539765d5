"""A cast file: a block of a take as a file of its own, which shots of other films recall."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..script import BlockPlan
from ..script.cast import FORMAT, cast_facts
from ..script.recall import NAME
from ..types import BlockSpec
from ..units import plural
from .block_file import BadBlockError, latents_digest, load_block, write_atomically
from .settings import COMFYUI, Setting, Settings, fingerprint
from .take import Take

# What must be the same in the film that recalls the block, and what to do if it is not.
MUST_EQUAL = {
    "weights": ("another model or LoRA", "use the model and the LoRAs of that film, or save a block of a film of this"),
    "size": ("another size", "render with --size {was}, or save a block of a film of size {now}"),
    "block_frames": ("another block length", "save a block of a film with blocks of {now} latent frames"),
}
LATENTS, STILL, TRANSFORMER = "latents", "still", "transformer"


@dataclass(frozen=True, slots=True)
class Card:
    """The block of a cast file.

    latents: `[1, C, F, H, W]` float32 on the CPU, normalised. prompt: with which its clean pass runs. origin: the film,
    shot and block that it was saved from. made_by: the settings of `MUST_EQUAL`, and `transformer_fingerprint`, "" with
    LoRAs. still: a picture `[H, W, 3]` uint8.
    """

    name: str
    latents: Tensor
    prompt: str
    origin: str
    made_by: Settings
    still: Tensor | None = None

    @property
    def digest(self) -> str:
        """Fingerprint of what changes the bits of a film: the latents and the prompt."""
        return fingerprint([latents_digest(self.latents).encode(), self.prompt.encode()])

    def save(self, path: Path) -> None:
        """Writes the file atomically. Raises OSError."""
        facts = {
            "format": FORMAT,
            "name": self.name,
            "prompt": self.prompt,
            "origin": self.origin,
            "made_by": json.dumps(dict(self.made_by)),
            "digest": self.digest,
        }
        tensors = {LATENTS: self.latents.contiguous()} | ({} if self.still is None else {STILL: self.still})
        write_atomically(path, lambda partial: save_file(tensors, partial, facts))

    @classmethod
    def load(cls, path: Path) -> Card:
        """Reads a file. Raises ValueError if it is missing, damaged or no cast file."""
        facts = cast_facts(path)
        try:
            with safe_open(path, "pt") as file:
                still = file.get_tensor(STILL).clone() if STILL in file.keys() else None  # noqa: SIM118
                # Cloned, because a tensor of a memory-mapped file would keep it open.
                latents = file.get_tensor(LATENTS).clone()
            made_by = json.loads(facts["made_by"])
            card = cls(facts["name"], latents, facts["prompt"], facts["origin"], made_by, still)
            if card.digest != facts["digest"]:
                raise ValueError("the checksum of its latents and its prompt differs")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); save it again with `longlive cast save`") from error
        return card

    def check_film(self, recorded: Settings, transformer: str) -> None:
        """Raises ValueError, with the remedy, if a film of these settings cannot recall the block.

        transformer: the fingerprint of its model without LoRAs, "" for one with LoRAs or quantised weights. Weights of
        the command line are compared with those of ComfyUI by it, because their own fingerprints differ.
        """
        for setting, (what, remedy) in MUST_EQUAL.items():
            was, now = self.made_by.get(setting), recorded.get(setting)
            if setting == "weights" and _of_comfyui(was) != _of_comfyui(now):
                was, now = self.made_by.get(TRANSFORMER) or "not known", transformer or "not known"
                if "not known" in (was, now):
                    what += ", or the same one that cannot be compared between the command line and ComfyUI"
                    remedy = "use it where it was made, or save a block of a film of this model here"
            if was != now or now == "not known":
                raise ValueError(
                    f"the cast '{self.name}' ({self.origin}) is of {what}: {setting} was {was}, now {now}; "
                    + remedy.format(was=was, now=now)
                )


def _of_comfyui(weights: Setting) -> bool:
    return str(weights).startswith(COMFYUI)


def check_block(plan: BlockPlan, shot: int, block: int) -> BlockSpec:
    """The block of a shot, both by number from 1. Raises ValueError if the film has no such block."""
    if not 1 <= shot <= plan.shots:
        raise ValueError(f"shot {shot}: the film has {plural(plan.shots, 'shot')}, numbered from 1")
    specs = plan.blocks_of_shots[shot - 1]
    if not 1 <= block <= len(specs):
        raise ValueError(f"block {block}: shot {shot} has {len(specs)}, numbered from 1")
    return specs[block - 1]


def check_name(name: str) -> None:
    """Raises ValueError for a name by which no shot can recall a block."""
    if NAME.fullmatch(name) is None:
        raise ValueError(f"'{name}' is not a valid name: a name has letters, digits, _ and single -; give another one")


def check_replaceable(path: Path) -> None:
    """Raises ValueError if a file of this name exists that is no cast file."""
    if path.exists():
        try:
            cast_facts(path)
        except ValueError as error:
            raise ValueError(f"{error}; it is not replaced, name another file") from error


def card_of(take: Take, shot: int, block: int, name: str) -> Card:
    """Makes the card of a stored block, without a still; shot and block are numbers from 1.

    Raises ValueError if the film has no such block or it is not stored.
    """
    spec = check_block(take.plan, take.shot_index(shot) + 1, block)
    try:
        latents = load_block(take.path(spec), spec, take.settings)[0].latents
    except (FileNotFoundError, BadBlockError) as error:
        raise ValueError(f"{error}; make it with `longlive render --resume {take.folder}`") from error
    made_by = {setting: take.settings.get(setting) for setting in MUST_EQUAL}
    return Card(name, latents, spec.prompt, f"{take.film.name}, shot {shot}, block {block}", made_by)
