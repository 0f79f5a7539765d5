"""A film that was stopped anywhere resumes bit for bit; damaged or foreign blocks are reported and made again."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from longlive.longlive_core.mini import Mini
from longlive.longlive_core.pipeline.stages import StageError
from longlive.longlive_core.render.job import Job, RenderSettings
from longlive.longlive_core.take import Take
from longlive.longlive_core.video import read_video
from safetensors.torch import load_file

from ..full_disk import files_no_larger_than
from ..takes import (
    BLOCKS,
    MODEL,
    SCRIPT,
    VAE,
    after,
    latents,
    make_mini,
    remade,
    resume,
    same,
)

NO_SETTINGS = json.dumps(
    {
        "format": "longlive-take-1",
        "script": "the hero",
        "settings": {},
        "machine": {},
        "shots": [{"versions": [{"text": "the hero"}], "chosen": 0, "spliced": False}],
    }
)


def test_a_take_says_what_the_film_is(take: Take) -> None:
    """Its script in canonical text and every setting, in a file that a person can read."""
    kept = json.loads((take.folder / "take.json").read_text())
    assert kept["format"] == "longlive-take-1"
    assert kept["script"] == take.script.format()
    assert kept["settings"].items() >= {"seed": 0, "steps": 2, "size": "32x32", "window": 32, "fps": 24}.items()
    assert Take.load(take.folder) == replace(take, machine=kept["machine"])
    assert take.complete and take.block_count(2) == 1


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 9, 30, 51])
def test_a_stopped_film_goes_on_to_the_bit(mini: Mini, settings: RenderSettings, take: Take, calls: int) -> None:
    """A film that was stopped, or killed, samples only its missing blocks, and is the same to the bit."""
    whole, film = latents(take), read_video(settings.output)
    # In turn, so that as many questions are as many blocks in every run.
    stopped = Job(replace(settings, decode="sequential"), mini=mini, should_stop=after(calls))
    assert not stopped.run()
    made = take.block_count()
    assert made < BLOCKS
    for name in ("take.partial", f"shots/001/v0/block_{made:05}.partial"):  # as a kill may leave them
        (take.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (take.folder / name).write_bytes(b"torn")
    job, _ = resume(take, mini)
    assert job.film.report is not None and len(job.film.report.sampled) == BLOCKS - made
    assert all(same(latents(take), whole))
    assert torch.equal(read_video(settings.output), film)


@pytest.mark.slow
def test_a_complete_take_is_written_again_without_sampling(mini: Mini, settings: RenderSettings, take: Take) -> None:
    """A complete take is written as a film again, byte for byte and without sampling."""
    film = settings.output.read_bytes()
    settings.output.unlink()
    job, notes = resume(take, mini)
    assert job.film.report is not None and not job.film.report.sampled and not notes
    assert settings.output.read_bytes() == film


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hurt", "word"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (damage, "damaged (the checksum of its latents differs"),
    ],
)
def test_a_bad_block_is_said_and_made_again_to_the_bit(
    mini: Mini, take: Take, hurt: Callable[[Path], None], word: str
) -> None:
    """One bit is enough; later blocks are reused, because the block that is made again equals the original."""
    whole = latents(take)
    hurt(take.path(take.plan.blocks[2]))
    job, notes = resume(take, mini)
    assert word in notes[0]
    assert job.film.report.sampled == [2]
    assert all(same(latents(take), whole))


@pytest.mark.slow
def test_blocks_made_after_others_are_made_anew(mini: Mini, take: Take) -> None:
    """A block of another history, put into the folder, is no part of the film."""
    whole = latents(take)
    remade(take, mini, 1, "ripple", seed=8)
    changed = Take.load(take.folder)
    spec = take.plan.blocks[4]
    changed.path(spec).write_bytes(take.path(spec).read_bytes())
    expected = latents(changed)
    job, notes = resume(changed, mini)
    assert "was made after other blocks" in notes[0]
    assert job.film.report.sampled == [4]
    assert not any(same(expected[:2], whole[:2])) and same([latents(changed)[4]], [whole[4]]) == [False]


def test_a_take_goes_on_with_its_own_settings_only(take: Take) -> None:
    """A take resumes with its own settings and weights only, and the error names the difference."""
    for given, message in (({"seed": 3}, "seed was 0, now 3"), ({"window": 24, "steps": 4}, "steps was 2, now 4")):
        with pytest.raises(ValueError, match=message):
            RenderSettings.resumed(take.folder, given=given)
    assert RenderSettings.resumed(take.folder, given={"seed": 0}).seed == 0
    other = Mini.random(3, ["the", "hero", "other"], MODEL, VAE)
    with pytest.raises(ValueError, match="weights was"):
        Job(RenderSettings.resumed(take.folder), mini=other)


@pytest.mark.parametrize(
    "text", ["", "{}", '{"format": "longlive-take-9"}', "[1]", '{"format": "longlive-take-1"}', NO_SETTINGS]
)
def test_what_is_no_take_is_refused(tmp_path: Path, text: str) -> None:
    """A folder without a take file, or with one that cannot be read, is refused as no take."""
    with pytest.raises(FileNotFoundError, match=r"not a take: it has no take\.json"):
        Take.load(tmp_path)
    (tmp_path / "take.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be read as a take"):
        Take.load(tmp_path)


@pytest.mark.slow
def test_a_stop_while_memory_is_rebuilt_keeps_no_wrong_block(mini: Mini, take: Take) -> None:
    """Without a snapshot, four blocks are replayed first; `should_stop` is true once, and then no more."""
    whole, path, stopped = latents(take), take.path(take.plan.blocks[4]), 0
    for memory in take.snapshot_paths():
        memory.unlink()
    for calls in range(12):
        path.unlink(missing_ok=True)
        answers = iter([False] * calls + [True])
        stop: Callable[[], bool] = lambda answers=answers: next(answers, False)  # noqa: E731
        stopped += not Job(RenderSettings.resumed(take.folder), mini=mini, should_stop=stop).run()
        assert not path.exists() or torch.equal(load_file(path)["latents"], whole[4])
    assert stopped >= 8
    resume(take, mini)
    assert all(same(latents(take), whole))


def test_a_new_film_takes_the_blocks_of_an_old_one_away(mini: Mini, settings: RenderSettings, take: Take) -> None:
    """A new film in place of an old one removes all files of the old take."""
    settings.script.write_text("Shot 1 (1 block): the hero\n")  # type: ignore[union-attr]
    assert Job(settings, mini=mini).run()
    names = [path.name for path in take.folder.rglob("*") if path.is_file()]
    assert sorted(names) == ["block_00000.safetensors", "film.mp4.txt", "pace.json", "take.json"]


@pytest.mark.linux
def test_a_disk_too_full_for_a_block_leaves_no_piece_of_it(mini: Mini, settings: RenderSettings) -> None:
    """A disk too full for a block is an error with the file and a remedy, and no piece of the block stays."""
    job = Job(settings, mini=mini)
    with files_no_larger_than(5_000), pytest.raises(StageError, match=r"cannot write .*block_00000.*free disk space"):
        job.run()
    assert job.take is not None and not list(job.take.folder.rglob("*_00000*"))


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_what_is_there(
    mini: Mini, settings: RenderSettings, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up leaves the finished blocks and their video frames, and the film resumes to the bit."""
    whole, film = latents(take), settings.output.read_bytes()

    def full(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        if "block_00003" in path.name:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(tensors, path, metadata)

    blocks = "longlive.longlive_core.take.block_file"
    save = sys.modules[blocks].save_file
    monkeypatch.setattr(sys.modules[blocks], "save_file", full)
    with pytest.raises(StageError, match=r"^sampling: .*block_00003.*No space left.*free disk space"):
        Job(settings, mini=mini).run()
    assert take.block_count() == 3 and not list(take.partial_files())
    assert len(read_video(settings.output)) == 29 + 2 * 32
    monkeypatch.undo()
    resume(take, mini)
    assert all(same(latents(take), whole)) and settings.output.read_bytes() == film


KILLED = """
    import os, signal, sys, time, types
    from pathlib import Path

    root, folder, moments = sys.argv[1], Path(sys.argv[2]), [float(word) for word in sys.argv[3:]]
    package = types.ModuleType("longlive")
    package.__path__ = [root]
    sys.modules["longlive"] = package
    import torch
    from longlive.longlive_core.render.job import Job, RenderSettings
    from longlive.longlive_core.mini import load_mini

    torch.set_num_threads(1)
    mini = load_mini(folder / "mini")

    def render(name, resume=False):
        film, take = folder / f"{name}.mp4", folder / f"{name}.take"
        if resume and (take / "take.json").exists():
            Job(RenderSettings.resumed(take), mini=mini).run()
        else:
            Job(RenderSettings(folder / "script.txt", film, size="32x32", steps=2), mini=mini).run()

    def child(name, resume, until=None):
        process = os.fork()
        if process == 0:
            render(name, resume)
            os._exit(0)
        if until is not None:
            # By how many blocks there are, and a little, not by a clock: the machine may be busy.
            while made(name) < int(until):
                time.sleep(0.001)
            time.sleep(until % 1 * 0.05)
            os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        assert until is not None or status == 0

    def made(name):
        return len(list((folder / f"{name}.take").rglob("block_*.safetensors")))

    render("whole")
    for i, moment in enumerate(moments):
        child(i, False, moment)
        print(made(i))
        if i % 2:
            child(i, True, min(moment + 1, 5.5))
        child(i, True)
"""


def files(take: Take) -> list[str]:
    names = (str(path.relative_to(take.folder)) for path in take.folder.rglob("*") if path.is_file())
    return sorted(name.replace(take.film.name, "film.mp4") for name in names)


@pytest.mark.slow
def test_killed_at_random_moments_every_film_goes_on_to_the_bit(tmp_path: Path, root: Path) -> None:
    """Eight renders end by SIGKILL, and half of the resumed ones too; then each is completed."""
    make_mini().save(tmp_path / "mini", torch.float32)
    (tmp_path / "script.txt").write_text(SCRIPT)
    rng = random.Random(7)
    moments = [str(6 * (i + rng.random()) / 8) for i in range(8)]
    program = tmp_path / "killed.py"
    program.write_text(textwrap.dedent(KILLED))
    ran = subprocess.run(
        [sys.executable, str(program), str(root), str(tmp_path), *moments],
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert sum(0 < int(made) < BLOCKS for made in ran.stdout.split()) >= 3, ran.stdout
    whole, film = Take.load(tmp_path / "whole.take"), read_video(tmp_path / "whole.mp4")
    for i in range(8):
        take = Take.load(tmp_path / f"{i}.take")
        assert all(same(latents(take), latents(whole))), (moments, i)
        assert torch.equal(read_video(take.film), film), (moments, i)
        assert files(take) == files(whole), (moments, i)
