"""A given video as the beginning of a take: its blocks are encoded, none of them is sampled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from ..script import Length, ScriptError, ShotScript
from ..script import Shot as ScriptShot
from ..types import Block, BlockSpec
from .block_file import BadBlockError, History, load_block, save_block
from .take import FILE, GIVEN_VIDEO, Shot, Take, Version, with_text


class MakeTake(Protocol):
    """The take of a script, with the settings of its film."""

    def __call__(self, script: ShotScript) -> Take: ...


def take_of_video(blocks: int, prompt: str, script: ShotScript, make: MakeTake) -> Take:
    """A take of one shot, the video, of that many blocks; not saved. `append` puts the script's shots behind it.

    prompt: the text of that shot, as in a script, whose names and style hold for it too. Raises ValueError for one that
    is no text of one shot.
    """
    if not prompt.strip():
        raise ValueError("the video has no prompt: say what it shows, the model reads it with its frames")
    length = Length(Decimal(blocks), "blocks")
    first = replace(script, shots=(ScriptShot(GIVEN_VIDEO, GIVEN_VIDEO, length),))
    try:
        take = make(with_text(first, 0, Version(prompt)))
    except ScriptError as error:
        _, _, why = str(error).partition(": ")  # it has no line in any script
        raise ValueError(f"the video's prompt: {why}") from error
    shot = take.script.shots[0]
    return replace(take, shots=(Shot((Version(shot.text, shot.seed, GIVEN_VIDEO),)),))


def save_video(
    take: Take, latents: Iterable[Tensor], should_stop: Callable[[], bool], on_block: Callable[[BlockSpec], None]
) -> bool:
    """Writes the given blocks of a take that has begun, and is claimed; false, and no take is left, after a stop.

    latents: of each latent frame, `[1, C, 1, h, w]`, as `encode_chunks` gives them; asked for one at a time. on_block:
    told of each block that is kept. Raises OSError, and what `latents` raises: no take is left then either.
    """
    history, frames, whole = History(), iter(latents), False
    try:
        for spec in _given(take):
            found = list(islice(_until(frames, should_stop), spec.frames))
            if len(found) < spec.frames:
                return False
            block = Block(spec, torch.cat(found, dim=2))
            history = history.then(save_block(take.path(spec), block, take.settings, history))
            on_block(spec)
        whole = True
    finally:
        if not whole:
            shutil.rmtree(take.folder / "shots", ignore_errors=True)
            (take.folder / FILE).unlink(missing_ok=True)
    return whole


def check_video(take: Take) -> None:
    """Raises ValueError where a block of a given video is missing or damaged: no model can make it again."""
    for spec in _given(take):
        try:
            load_block(take.path(spec), spec, take.settings)
        except (FileNotFoundError, BadBlockError) as error:
            raise ValueError(
                f"{error}: it is part of a given video and cannot be made again; `longlive extend` that video anew, "
                "or queue the workflow that the video is in"
            ) from error


def _given(take: Take) -> Iterator[BlockSpec]:
    """The blocks of the film as chosen that are a video's."""
    for spec in take.plan.blocks:
        shot = take.shots[spec.shot]
        if shot.versions[shot.chosen].made == GIVEN_VIDEO:
            yield spec


def _until(frames: Iterator[Tensor], should_stop: Callable[[], bool]) -> Iterator[Tensor]:
    while not should_stop():
        frame = next(frames, None)
        if frame is None:
            return
        yield frame
