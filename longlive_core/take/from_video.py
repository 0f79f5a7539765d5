"""A given video as the first shot of a take; its blocks are encoded, not sampled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import islice

import torch
from torch import Tensor

from ..script import Length, ScriptError, ShotScript
from ..script import Shot as ScriptShot
from ..types import Block, BlockSpec
from .block_file import BadBlockError, History, load_block, save_block
from .take import FILE, GIVEN_VIDEO, Shot, Take, Version, with_text


def take_of_video(blocks: int, prompt: str, script: ShotScript, make: Callable[[ShotScript], Take]) -> Take:
    """Makes a take whose only shot is a video of that many blocks; it is not saved. `append` adds the script's shots.

    prompt: the text of the shot; it may use the names and the style of the script. make: makes the take of a script
    with the settings of its film. Raises ValueError unless the prompt is the text of exactly one shot.
    """
    if not prompt.strip():
        raise ValueError("the video has no prompt: describe what it shows, for the model to read")
    length = Length(Decimal(blocks), "blocks")
    first = replace(script, shots=(ScriptShot(GIVEN_VIDEO, GIVEN_VIDEO, length),))
    try:
        take = make(with_text(first, 0, Version(prompt)))
    except ScriptError as error:
        _, _, why = str(error).partition(": ")  # the error's line and column refer to no script that the user wrote
        raise ValueError(f"the video's prompt: {why}") from error
    shot = take.script.shots[0]
    return replace(take, shots=(Shot((Version(shot.text, shot.seed, GIVEN_VIDEO),)),))


def save_video(
    take: Take, latents: Iterable[Tensor], should_stop: Callable[[], bool], on_block: Callable[[BlockSpec], None]
) -> bool:
    """Writes the video's blocks of a saved and locked take; returns false after a stop, and then the take is removed.

    latents: yields one latent frame `[1, C, 1, h, w]` at a time. on_block: called after each written block. Raises
    OSError and what `latents` raises; the take is removed then too.
    """
    history, frames, complete = History(), iter(latents), False
    try:
        for spec in _given(take):
            block_frames = list(islice(_until(frames, should_stop), spec.frames))
            if len(block_frames) < spec.frames:
                return False
            block = Block(spec, torch.cat(block_frames, dim=2))
            history = history.then(save_block(take.path(spec), block, take.settings, history))
            on_block(spec)
        complete = True
    finally:
        if not complete:
            shutil.rmtree(take.folder / "shots", ignore_errors=True)
            take.sound.unlink(missing_ok=True)
            (take.folder / FILE).unlink(missing_ok=True)
    return complete


def check_video(take: Take) -> None:
    """Raises ValueError if a block of a given video is missing or damaged, because it cannot be sampled again."""
    for spec in _given(take):
        try:
            load_block(take.path(spec), spec, take.settings)
        except (FileNotFoundError, BadBlockError) as error:
            raise ValueError(
                f"{error}: it is part of a given video and cannot be made again; run `longlive extend` on that video, "
                "or queue the workflow that contains the video"
            ) from error


def _given(take: Take) -> Iterator[BlockSpec]:
    """The blocks of the film as chosen that belong to a given video."""
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
