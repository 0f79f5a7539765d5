"""Two processes never make one take; one that dies leaves it to the next."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.cli.takes import takes_lines
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take
from longlive.longlive_core.take.lock import TakeLock

from ..takes import BLOCKS, after, make_mini, make_settings

HOLD = """
    import sys, time, types
    from pathlib import Path

    root, film, mini = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    package = types.ModuleType("longlive")
    package.__path__ = [root]
    sys.modules["longlive"] = package
    from longlive.longlive_core.render.job import Job, RenderSettings
    from longlive.longlive_core.mini import load_mini

    job = Job(RenderSettings(film.with_name("script.txt"), film, size="32x32", steps=2), mini=load_mini(mini))
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path) -> RenderSettings:
    make_mini().save(tmp_path / "mini", torch.float32)
    return make_settings(tmp_path)


@pytest.fixture
def holder(settings: RenderSettings, root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process with a job on the very film."""
    program = settings.output.with_name("hold.py")
    program.write_text(textwrap.dedent(HOLD))
    words = [sys.executable, str(program), str(root), str(settings.output), str(settings.output.with_name("mini"))]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


@pytest.mark.slow
def test_another_process_is_refused_until_the_first_dies(
    settings: RenderSettings, holder: subprocess.Popen[str]
) -> None:
    """A take has one process at a time: others are refused and change nothing, until the first one ends."""
    mini, take = load_mini(settings.output.with_name("mini")), settings.output.with_suffix(".take")
    message = rf"film.take is being made by another process \({holder.pid} on .*\); wait for it or stop it"
    before = (take / "take.json").read_bytes()
    attempts: tuple[Callable[[], object], ...] = (
        lambda: Job(settings, mini=mini),
        lambda: Job(RenderSettings.resumed(take), mini=mini),
        lambda: list(takes_lines(Namespace(what="prune", take=take, memory=False))),
    )
    for attempt in attempts:
        with pytest.raises(BlockingIOError, match=message):
            attempt()
    assert main(["render", "--resume", str(take)]) == 2
    assert (take / "take.json").read_bytes() == before
    holder.kill()
    holder.wait(timeout=20)
    assert Job(RenderSettings.resumed(take), mini=mini).run() and Take.load(take).block_count() == BLOCKS


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 9])
def test_a_job_that_ended_or_never_began_lets_go(settings: RenderSettings, calls: int) -> None:
    """A job that was stopped, or failed before it began, releases its take."""
    mini, take = load_mini(settings.output.with_name("mini")), settings.output.with_suffix(".take")
    assert not Job(settings, mini=mini, should_stop=after(calls)).run()
    settings.output.unlink()
    settings.output.mkdir()  # nothing can be written there
    with pytest.raises(OSError, match="is a folder"):
        Job(RenderSettings.resumed(take), mini=mini)
    settings.output.rmdir()
    assert Job(RenderSettings.resumed(take), mini=mini).run()


def test_a_film_that_is_refused_leaves_no_folder(settings: RenderSettings) -> None:
    """A film whose size is refused leaves no take."""
    mini = load_mini(settings.output.with_name("mini"))
    with pytest.raises(ValueError, match="size"):
        Job(RenderSettings(settings.script, settings.output, size="33x33"), mini=mini)
    assert not settings.output.with_suffix(".take").exists()


def test_a_claim_is_for_one(tmp_path: Path) -> None:
    """A lock is exclusive until it is released, and a release, also a second one, leaves the folder's other files."""
    (tmp_path / "kept").touch()
    with TakeLock(tmp_path) as claim:
        with pytest.raises(BlockingIOError, match="another process"):
            TakeLock(tmp_path)
        claim.release()
        claim.release()
        with TakeLock(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
