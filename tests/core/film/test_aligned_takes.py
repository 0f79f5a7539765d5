"""Films with aligned seams in takes, storyboards, chains and live scripts: made in one go or not, they are the same.

Shots 2 and 4 continue without a cut, so that a run can begin with a block that is aligned to a block on disk.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.film.film import Film
from longlive.longlive_core.film.live_script import LiveScript
from longlive.longlive_core.film.sampler_settings import storyboard_noise
from longlive.longlive_core.film.take_store import TakeStore
from longlive.longlive_core.sampling import block_noise
from longlive.longlive_core.script import BlockPlan, ShotScript
from longlive.longlive_core.script.storyboard import storyboard_plan
from longlive.longlive_core.take import Take, retake
from longlive.longlive_core.take.append import append
from longlive.longlive_core.take.retake import Mode
from longlive.longlive_core.take.take import GIVEN_VIDEO, Shot, Version
from longlive.longlive_core.types import Block
from torch import Tensor

from ..conftest import Tiny
from ..takes import after, latents, same, stored_film, take_film
from .test_film import CountingModel

SCRIPT = """\
Shot 1 (2 blocks): A
Shot 2 (2 blocks) continue: B
Shot 3 (2 blocks): C
Shot 4 (1 block) continue: D @seed=3
"""
BLOCKS = 7
SETTINGS = {"fps": 24.0, "block_frames": 2, "seed": 0, "seam": "align"}
CALLS = BLOCKS * 3


class Aligned(CountingModel):
    """Begins films with aligned seams."""

    def __init__(self, tiny: Tiny) -> None:
        super().__init__(tiny, seam="align")


def new_take(folder: Path, script: str = SCRIPT) -> Take:
    take = Take.new(folder, ShotScript.parse(script), SETTINGS, {})
    take.save()
    return take


def film_of(take: Take, model: CountingModel, *, snapshots: bool = False) -> Film:
    return Film(take.plan, model.start, TakeStore(take, snapshots=snapshots))


def made(take: Take, tiny: Tiny, *, snapshots: bool = False) -> list[Tensor]:
    """The blocks of the take's film, made if they are missing."""
    list(film_of(take, Aligned(tiny), snapshots=snapshots).run())
    return latents(take)


@pytest.fixture
def take(tmp_path: Path) -> Take:
    return new_take(tmp_path / "film.take")


@pytest.fixture(scope="module")
def whole(tiny: Tiny) -> list[Tensor]:
    """The blocks of the script's film, made in one go and in no take."""
    return [block.latents for block in Aligned(tiny).film(ShotScript.parse(SCRIPT).plan(24, 2)).run()]


def test_the_film_is_not_the_plain_one(tiny: Tiny, whole: list[Tensor]) -> None:
    """Otherwise nothing here would be a test of aligned seams."""
    plain = [block.latents for block in CountingModel(tiny).film(ShotScript.parse(SCRIPT).plan(24, 2)).run()]
    assert same(plain, whole) == [True] + [False] * 6


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("calls", range(0, CALLS + 1, 2))
def test_a_film_stopped_at_a_call_goes_on_from_disk(
    tiny: Tiny, take: Take, whole: list[Tensor], calls: int, snapshots: bool
) -> None:
    """Another process finds the blocks, and snapshots where they are stored, and makes the rest bit for bit."""
    list(film_of(take, Aligned(tiny), snapshots=snapshots).run(should_stop=after(calls)))
    assert all(same(made(Take.load(take.folder), tiny, snapshots=snapshots), whole))


@pytest.mark.parametrize("count", range(BLOCKS + 1))
def test_a_film_cut_off_goes_on_from_disk(tiny: Tiny, take: Take, whole: list[Tensor], count: int) -> None:
    """Only blocks that are not on disk are sampled."""
    with closing(iter(film_of(take, Aligned(tiny)).run())) as cut_off:
        for _ in range(count):
            next(cut_off)
    model = Aligned(tiny)
    list(film_of(Take.load(take.folder), model).run())
    assert model.sampled == 2 * (BLOCKS - count) and all(same(latents(take), whole))


def test_a_snapshot_before_a_continuing_block_is_used(tiny: Tiny, take: Take, whole: list[Tensor]) -> None:
    """It has the frame to align to: the block is made again from it, without a clean pass over the blocks before."""
    assert all(same(made(take, tiny, snapshots=True), whole))
    for index in (2, 6):
        take.path(take.plan.blocks[index]).unlink()
    model = Aligned(tiny)
    list(film_of(take, model, snapshots=True).run())
    assert all(same(latents(take), whole))
    assert (model.sampled, model.clean) == (2 * 2, 4)  # the clean passes of blocks 2 to 5


@pytest.mark.parametrize("snapshots", [False, True])
@pytest.mark.parametrize("mode", ["ripple", "keep"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_retake(tiny: Tiny, take: Take, whole: list[Tensor], number: int, mode: Mode, snapshots: bool) -> None:
    """A ripple makes the film of the changed script, to the bit. Keep leaves all other blocks as they are, and the
    retaken shot is the same as with a ripple. The blocks before stay, and come back when the retake is undone."""
    made(take, tiny, snapshots=snapshots)
    changed = retake(take, number, seed=9, mode=mode).take
    changed.save()
    blocks = made(changed, tiny, snapshots=snapshots)
    begins = [next(b.index for b in take.plan.blocks if b.shot == shot) for shot in range(4)] + [BLOCKS]
    first, end = begins[number - 1], begins[number]
    lines = SCRIPT.replace(" @seed=3", "").splitlines() if number == 4 else SCRIPT.splitlines()
    lines[number - 1] += " @seed=9"
    plan = ShotScript.parse("\n".join(lines)).plan(24, 2)
    anew = [block.latents for block in Aligned(tiny).film(plan).run()]
    assert all(same(blocks[:end], anew[:end])) and not any(same(blocks[first:end], whole[first:end]))
    assert all(same(blocks[end:], (whole if mode == "keep" else anew)[end:]))
    assert all(same(latents(take), whole))


def test_a_block_behind_a_splice_is_made_again_as_it_was(tiny: Tiny, take: Take) -> None:
    """It is aligned to the block that precedes it in the film as chosen, from disk as in one go."""
    made(take, tiny)
    changed = retake(take, 1, seed=9, mode="keep").take
    changed.save()
    made(changed, tiny)
    again = retake(changed, 4, seed=8).take
    again.save()
    expected = made(again, tiny)
    again.path(again.plan.blocks[6]).unlink()
    assert all(same(made(Take.load(take.folder), tiny), expected))


@pytest.mark.parametrize("continues", [" continue", ""])
def test_a_take_is_extended(tiny: Tiny, tmp_path: Path, take: Take, whole: list[Tensor], continues: str) -> None:
    """The longer film is that of the longer script; a shot without a cut is aligned to the last block of the take."""
    made(take, tiny)
    shot = f"(2 blocks){continues}: E"
    longer = append(take, f"Shot 1 {shot}\n")
    longer.save()
    expected = made(new_take(tmp_path / "longer.take", f"{SCRIPT}Shot 5 {shot}\n"), tiny)
    blocks = made(longer, tiny)
    assert len(blocks) == 9 and all(same(blocks, expected)) and all(same(blocks[:BLOCKS], whole))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_given_video_is_aligned_to(tiny: Tiny, tmp_path: Path, count: int) -> None:
    """The shot behind a video is aligned to the video's last frame, with the noise that this block would have had, in
    one go as after an interruption."""
    script = "Shot 1 (2 blocks): V\nShot 2 (3 blocks) continue: A\n"
    plan = ShotScript.parse(script).plan(24, 2)
    video = torch.randn(1, 4, 4, 4, 6, generator=torch.Generator().manual_seed(8))
    expected = tiny.film("", plan=plan, prefix=video, seam="align")
    assert not torch.equal(expected, tiny.film("", plan=plan, prefix=video))
    take = new_take(tmp_path / "film.take", script)
    given = Shot((Version("V", made=GIVEN_VIDEO),))
    take = Take(take.folder, take.script, SETTINGS, {}, (given, take.shots[1]))
    take.save()
    film = stored_film(Film(plan, Aligned(tiny).start, start=video), take)
    with closing(iter(film.run())) as cut_off:
        for _ in range(count):
            next(cut_off)
    blocks = list(take_film(Take.load(take.folder), Aligned(tiny).start).run())
    assert torch.equal(torch.cat([block.latents for block in blocks], dim=2), expected)


def test_a_film_begins_with_its_storyboard(tiny: Tiny) -> None:
    """The storyboard has no aligned block. The film keeps its blocks to the bit, and aligns the others to them."""
    plan = ShotScript.parse(SCRIPT).plan(24, 2)
    board = CountingModel(tiny, noise=storyboard_noise(plan, block_noise(0)), seam="align").film(storyboard_plan(plan))
    plain = CountingModel(tiny, noise=storyboard_noise(plan, block_noise(0))).film(storyboard_plan(plan))
    first = {index: block.latents for index, block in zip((0, 4), board.run(), strict=True)}
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(board.run(), plain.run(), strict=True))
    film = Film(plan, Aligned(tiny).start, storyboard=board)
    blocks = torch.cat([block.latents for block in film.run()], dim=2)
    assert torch.equal(blocks, tiny.film("", plan=plan, seam="align", known=lambda spec: first.get(spec.index)))
    assert torch.equal(blocks[:, :, 8:10], first[4])


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("stored", [False, True])
def test_a_chain_makes_the_film_of_one_plan(tiny: Tiny, take: Take, whole: list[Tensor], at: int, stored: bool) -> None:
    """Films that continue one another hand on the last frame with the K/V; from disk it is read."""
    first = BlockPlan(take.plan.blocks[:at], 24.0, 2)
    model = Aligned(tiny)
    film = stored_film(Film(take.plan, model.start, earlier=Film(first, model.start)), take)
    if stored:
        with closing(iter(film.run())) as cut_off:
            for _ in range(at):
                next(cut_off)
        film = stored_film(Film(take.plan, model.start, earlier=Film(first, model.start)), Take.load(take.folder))
    assert all(same([block.latents for block in film.run()], whole))


def test_a_live_script_changes_a_shot_that_continues(tiny: Tiny, take: Take) -> None:
    """The film is that of the changed script: the generation that goes on has the last frame of the one before."""
    script = ShotScript.parse(SCRIPT)
    changing = LiveScript(script, take.plan)
    run = stored_film(Film(take.plan, Aligned(tiny).start, live=changing), take, changing).run()
    blocks: list[Block] = [next(run), next(run)]
    changing.change(SCRIPT.replace(": B", ": E"))
    blocks += run
    plan = ShotScript.parse(SCRIPT.replace(": B", ": E")).plan(24, 2)
    expected = [block.latents for block in Aligned(tiny).film(plan).run()]
    assert all(same([block.latents for block in blocks], expected))
    loaded = Take.load(take.folder)
    loaded.path(loaded.plan.blocks[3]).unlink()
    assert all(same(made(loaded, tiny), expected))
