"""The storyboard of a take: the first block of every shot, which the film then begins its shots with."""

from __future__ import annotations

from dataclasses import replace

from ..script.storyboard import storyboard_blocks
from .block_file import BadBlockError, load_block
from .take import Take


def with_storyboard(take: Take) -> Take:
    """Marks every shot whose first block is missing as a storyboard version; the take is not saved."""
    shots = list(take.shots)
    for spec in storyboard_blocks(take.plan):
        shot = shots[spec.shot]
        try:
            load_block(take.path(spec), spec, take.settings)
        except (FileNotFoundError, BadBlockError):
            version = replace(shot.versions[shot.chosen], made="preview")
            versions = (*shot.versions[: shot.chosen], version, *shot.versions[shot.chosen + 1 :])
            shots[spec.shot] = replace(shot, versions=versions)
    return replace(take, shots=tuple(shots))
