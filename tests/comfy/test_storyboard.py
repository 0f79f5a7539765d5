"""A storyboard in the host: it is drawn alone, and then begins the shots of the film."""

from __future__ import annotations

import pytest
import torch

from .graphs import SAMPLER, latent, latents, plan_of
from .host import Host

pytestmark = pytest.mark.comfy

TIMEOUT_SECONDS = 300
SCRIPT = """hero: a big red ring

Shot 1 (2.67s): {hero} sways on the left in front of a plain forest wall
Shot 2 (2.67s): {hero} circles in the middle against a striped navy wall
Shot 3 (1.33s): {hero} rests on the right against a plain wine wall
"""


def test_a_film_begins_its_shots_with_the_storyboard_that_was_shown(comfy: Host) -> None:
    """Queued with "only", then with "first" and the same seeds: the same latents to the bit, and a line that counts."""
    only = comfy.run(latent(SCRIPT, storyboard="only"), TIMEOUT_SECONDS)
    assert only.ok, only.error
    assert any(text.startswith("shot 3/3 · block 3/3 · ") for text in only.texts[SAMPLER])
    first = comfy.run(latent(SCRIPT, storyboard="first"), TIMEOUT_SECONDS)
    assert first.ok, first.error
    plan = plan_of(SCRIPT)
    board, film = (latents(comfy, run).split(plan.block_frames, dim=2) for run in (only, first))
    assert (len(board), len(film)) == (3, len(plan.blocks))
    openings = [block.index for block in plan.blocks if plan.begins_shot(block)]
    assert all(torch.equal(one, film[index]) for one, index in zip(board, openings, strict=True))
