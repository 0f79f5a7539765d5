"""Independent shots of one film are sampled by several processes, and the film is the one that one of them makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.render.work import WorkFolder
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.block_file import load_block, save_block
from longlive.longlive_core.take.lock import TakeLock
from longlive.longlive_core.types import Block

from ..takes import after, latents, make_mini, same

SCRIPT = """\
Shot 1 (2 blocks): the hero
Shot 2 (2 blocks): the other
Shot 3 (1 block): the hero @seed=4
Shot 4 (1 block) continue: the other
Shot 5 (2 blocks): the hero
"""
GIVEN: Mapping[str, object] = {"size": "32x32", "steps": 2, "seam": "align", "independent_shots": True}


@pytest.fixture(scope="module")
def mini() -> Mini:
    return make_mini()


@pytest.fixture(scope="module")
def alone(mini: Mini, tmp_path_factory: pytest.TempPathFactory) -> Take:
    folder = tmp_path_factory.mktemp("alone")
    (folder / "film.txt").write_text(SCRIPT)
    job = Job(RenderSettings.of(folder / "film.txt", folder / "film.mp4", GIVEN), mini=mini)
    assert job.run() and job.take is not None and job.film.report.replayed == 0
    assert not job.take.snapshot_paths()
    return job.take


@pytest.fixture
def begun(mini: Mini, tmp_path: Path) -> Take:
    """A film whose first block, the global sink, is there, and which another process has."""
    (tmp_path / "film.txt").write_text(SCRIPT)
    settings = RenderSettings.of(tmp_path / "film.txt", tmp_path / "film.mp4", GIVEN)
    job = Job(settings, mini=mini, should_stop=after(7))
    assert not job.run() and job.take is not None and 0 < job.take.block_count() < 3
    return job.take


def helper(take: Take, mini: Mini) -> WorkFolder:
    return WorkFolder(take.folder.parent, {}, mini=mini)


def sampled(take: Take, mini: Mini, count: int | None = None) -> list[int]:
    """Samples shots ahead until no others are open; returns their first blocks."""
    work, first = helper(take, mini), list[int]()
    while len(first) != count and (shots := work.claim_shots(take.folder)) is not None:
        with shots.lock:
            assert work.sample(shots, lambda: False)
        first.append(shots.run[0].index)
    return first


def finished(take: Take, mini: Mini) -> Job:
    job = Job(RenderSettings.resumed(take.folder), mini=mini)
    assert job.run()
    return job


@pytest.mark.slow
def test_shots_that_others_sampled_are_taken_over(mini: Mini, alone: Take, begun: Take) -> None:
    """From the last shot on, with what continues it; the film samples the rest, and has the bits of one made alone."""
    with TakeLock(begun.folder):
        assert sampled(begun, mini) == [6, 4, 2]
    job = finished(begun, mini)
    assert set(job.film.report.sampled) <= {0, 1}
    assert all(same(latents(begun), latents(alone))) and begun.film.read_bytes() == alone.film.read_bytes()
    files = [sorted(str(path.relative_to(take.folder)) for path in take.folder.rglob("*")) for take in (begun, alone)]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_film_goes_on_with_few_passes(mini: Mini, alone: Take, begun: Take) -> None:
    """It rebuilds the KV cache of the global sink and of the shot itself, not of all blocks before."""
    for spec in alone.plan.blocks[: len(alone.plan.blocks) - 1]:
        begun.path(spec).parent.mkdir(parents=True, exist_ok=True)
        begun.path(spec).write_bytes(alone.path(spec).read_bytes())
    job = finished(begun, mini)
    assert job.film.report.sampled == [7] and job.film.report.replayed == 2
    assert all(same(latents(begun), latents(alone)))


@pytest.mark.slow
def test_what_a_helper_leaves_unfinished_goes_on(mini: Mini, alone: Take, begun: Take) -> None:
    """Another helper continues shots after the last stored block, and so does the film itself."""
    work = helper(begun, mini)
    for calls in (6, 3):
        shots = work.claim_shots(begun.folder)
        assert shots is not None and shots.run[0].index == 6
        with shots.lock:
            assert not work.sample(shots, after(calls))
    ahead = begun.folder / "ahead" / "00006"
    assert [path.name for path in ahead.iterdir()] == ["block_00006.safetensors"]
    job = finished(begun, mini)
    assert 6 not in job.film.report.sampled and 7 in job.film.report.sampled
    assert all(same(latents(begun), latents(alone))) and not ahead.parent.exists()


@pytest.mark.slow
def test_shots_after_another_sink_are_not_taken_over(mini: Mini, alone: Take, begun: Take) -> None:
    """A block that was sampled ahead, and then the first block of the film changes: it is sampled again."""
    assert sampled(begun, mini, count=1) == [6]
    first = begun.plan.blocks[0]
    block, record = load_block(begun.path(first), first, begun.settings)
    for spec in begun.plan.blocks:
        begun.path(spec).unlink(missing_ok=True)
    save_block(begun.path(first), Block(first, block.latents + 1), begun.settings, record.history)
    job = finished(begun, mini)
    assert job.film.report.sampled == list(range(1, 8))
    assert not any(same(latents(begun), latents(alone)))


def test_shots_of_other_films_are_nobodys(mini: Mini, begun: Take, tmp_path: Path) -> None:
    """Shots that the film has begun or that see those before them, and all of them without the global sink, are left to
    the process that makes the film."""
    work = helper(begun, mini)
    begun.path(begun.plan.blocks[0]).rename(tmp_path / "sink")
    assert work.claim_shots(begun.folder) is None
    (tmp_path / "sink").rename(begun.path(begun.plan.blocks[0]))
    shots, other = (work.claim_shots(begun.folder) for _ in range(2))
    assert shots is not None and other is not None and other.run != shots.run
    shots.lock.release()
    other.lock.release()
    here = begun.path(shots.run[0])
    here.parent.mkdir(parents=True)
    here.touch()
    third = work.claim_shots(begun.folder)
    assert third is not None and third.run == other.run
    third.lock.release()
    path = begun.folder / "take.json"
    path.write_text(path.read_text("utf-8").replace('"independent_shots": true', '"independent_shots": false'))
    assert work.claim_shots(begun.folder) is None
