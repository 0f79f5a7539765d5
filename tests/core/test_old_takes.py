"""Takes that older versions made open, resume, retake and extend; see `tests/golden/takes/README.md`.

Everything goes through what a user has: the command line, and the files on disk, which each test copies first. What
holds for any weights comes first. The rest samples, and needs the very weights that the takes were made with.
"""

from __future__ import annotations

import functools
import hashlib
import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from longlive.longlive_core.cli.main import main
from longlive.longlive_core.take import Take
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

pytestmark = pytest.mark.slow

TAKES = next(folder for folder in Path(__file__).resolve().parents if folder.name == "tests") / "golden" / "takes"
VERSIONS = sorted(path.parent for path in TAKES.glob("*/made_by.json"))
COMPLETE = ["film", "ripple", "keep", "extended", "video", "nvfp4", "guided"]
MISSING = {"killed": 1, "storyboard": 2}  # blocks of the film that are not there
OTHER_WEIGHTS = "0123456789abcdef"
# Relative L2 between latents of two machines: their last bits differ, and each block is made from those before it.
# Kernels of AVX-512 and of plain C++ differ by 4e-4.
TOLERANCE = 1e-2

Outcome = tuple[int, str, str]
Copy = Callable[[str], Path]


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def made(request: pytest.FixtureRequest) -> Path:
    """The folder of the takes that one version made."""
    return request.param


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Copy:
    """Copies a kind of take, with all that lies beside it, and gives the take's folder."""

    def copy_one(kind: str, name: str = "") -> Path:
        place = tmp_path / (name or kind)
        shutil.copytree(made / kind, place)
        (take,) = place.glob("*.take")
        return take

    return copy_one


@pytest.fixture
def same_weights(made: Path) -> None:
    """Skips the test where the embedded model is not the one that the takes were made with."""
    if json.loads((made / "made_by.json").read_text("utf-8"))["tensors"] != tensors_digest():
        pytest.skip("the embedded model has changed since; make_takes.py makes new ones")


@functools.cache
def tensors_digest() -> str:
    """Of the embedded model, by its tensors alone: that a version fingerprints them otherwise skips no test."""
    return runpy.run_path(str(TAKES / "make_takes.py"))["tensors_digest"]()


def longlive(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def done(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """What a command that succeeds says."""
    code, out, err = longlive(capsys, *words)
    assert code == 0, err
    return out


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder, and the digest of its bytes.

    The file `in_use` means nothing, nor does how a system ends the lines of `take.json`.
    """
    found: dict[str, str] = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "in_use":
            data = path.read_bytes()
            data = data.replace(b"\r\n", b"\n") if path.suffix == ".json" else data
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def made_files(take: Path) -> dict[str, str]:
    """The blocks and the memories of a take, as `contents` has them."""
    return {name: digest for name, digest in contents(take).items() if name.startswith(("shots/", "memory/"))}


def blocks_in(take: Path) -> dict[str, str]:
    return {name: digest for name, digest in contents(take).items() if name.startswith("shots/")}


def recorded(take: Path) -> dict[str, Any]:
    """What `take.json` says."""
    return json.loads((take / "take.json").read_text("utf-8"))


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def chosen(take: Path) -> list[Path]:
    """The block files of the film as chosen, those that are there."""
    loaded = Take.load(take)
    return [path for path in map(loaded.path, loaded.plan.blocks) if path.is_file()]


def film_latents(take: Path) -> list[Tensor]:
    return [load_file(path)["latents"] for path in chosen(take)]


def difference(one: Tensor, other: Tensor) -> float:
    """Relative L2."""
    return ((one - other).norm() / other.norm()).item()


def frames(film: Path) -> Tensor:
    """What a film plays, `[T, H, W, 3]` float32 in 0 … 255."""
    with av.open(str(film)) as container:
        decoded = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return torch.stack(decoded).float()


def planned_frames(take: Path) -> int:
    return recorded(take)["plan"]["frames"]


def state(take: Path) -> list[tuple[int, int, bool, bool]]:
    """Of each shot: how many versions there are, which one is chosen, whether it is spliced and whether locked."""
    shots = recorded(take)["shots"]
    return [(len(shot["versions"]), shot["chosen"], shot["spliced"], shot["locked"]) for shot in shots]


def history(*digests: str) -> str:
    """The name of the history behind blocks of these digests."""
    name = ""
    for digest in digests:
        name = hashlib.sha256(f"{name}/{digest}".encode()).hexdigest()[:32]
    return name


# What holds for any weights


def test_they_stay_small() -> None:
    """What every clone carries for one version is less than 1.5 MB."""
    assert VERSIONS
    for version in VERSIONS:
        assert sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) < 1.5e6


@pytest.mark.parametrize("kind", [*COMPLETE, *MISSING, "comfyui"])
def test_a_take_opens(capsys: pytest.CaptureFixture[str], copy: Copy, kind: str) -> None:
    """Its script plans to the very blocks that lie on disk; `takes show` and `list` tell every version of every shot,
    and change nothing."""
    take = copy(kind)
    before, facts = contents(take), recorded(take)
    plan = Take.load(take).plan
    assert facts["plan"] == {
        "shots": plan.shots,
        "blocks": len(plan.blocks),
        "frames": plan.video_frames,
        "seconds": plan.seconds,
    }
    assert len(chosen(take)) == len(plan.blocks) - MISSING.get(kind, 0)
    for path in chosen(take):
        spec: dict[str, Any] = json.loads(metadata(path)["spec"])
        assert {name: getattr(plan.blocks[spec["index"]], name) for name in spec} == spec
    told = done(capsys, "takes", "show", take)
    for version in (version for shot in facts["shots"] for version in shot["versions"]):
        assert version["text"] in told
        assert version["seed"] is None or f"seed {version['seed']}" in told
    for mark in ("locked", "spliced"):
        assert (mark in told) == any(shot[mark] for shot in facts["shots"])
    assert take.name in done(capsys, "takes", "list", take.parent)
    assert contents(take) == before


def test_a_lock_comes_and_goes(capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    """Locked and unlocked, the take is what it was, to the byte: what is read is written in the same format."""
    take = copy("film")
    before = contents(take)
    done(capsys, "takes", "lock", take, "--shot", "2")
    assert state(take) == [(1, 0, False, False), (1, 0, False, True)]
    done(capsys, "takes", "unlock", take, "--shot", "2")
    assert contents(take) == before


@pytest.mark.parametrize(
    ("kind", "shot", "was", "others"),
    [
        # Shot 3 was made behind version 0 of shot 2, so it is spliced behind the others.
        (
            "keep",
            "2",
            1,
            {
                0: [(1, 0, False, False), (3, 0, False, False), (1, 0, False, True)],
                2: [(1, 0, False, False), (3, 2, False, False), (1, 0, True, True)],
            },
        ),
        # Shot 2 follows to the version that was made behind this one of shot 1.
        ("ripple", "1", 1, {0: [(2, 0, False, False), (2, 0, False, False)]}),
        ("comfyui", "2", 1, {0: [(1, 0, False, False), (2, 0, False, False), (1, 0, False, False)]}),
    ],
)
def test_choose_goes_back_and_forth(
    capsys: pytest.CaptureFixture[str],
    copy: Copy,
    kind: str,
    shot: str,
    was: int,
    others: dict[int, list[tuple[int, int, bool, bool]]],
) -> None:
    """Another version is chosen and those after it follow or are spliced, as their histories on disk say; chosen again,
    the first one makes the take what it was, to the byte. No block is touched."""
    take = copy(kind)
    before = contents(take)
    for version, expected in others.items():
        done(capsys, "takes", "choose", take, "--shot", shot, "--version", str(version))
        assert state(take) == expected
        assert made_files(take).items() <= before.items()
    done(capsys, "takes", "choose", take, "--shot", shot, "--version", str(was))
    assert contents(take) == before


@pytest.mark.parametrize("kind", ["keep", "ripple"])
def test_prune_leaves_the_film(capsys: pytest.CaptureFixture[str], copy: Copy, kind: str) -> None:
    """Blocks of versions that are not chosen go, and memories of another history; the film stays, to the byte."""
    take = copy(kind)
    before, film = contents(take), chosen(take)
    done(capsys, "takes", "prune", take)
    after = contents(take)
    assert after.items() < before.items()
    assert {take / name for name in blocks_in(take)} == set(film)
    first = metadata(film[0])["digest"]
    (memory,) = (take / "memory").iterdir()
    assert memory.name == f"before_00001.{history(first)}.safetensors"
    done(capsys, "takes", "prune", take, "--memory")
    assert contents(take).items() < after.items()
    assert {take / name for name in made_files(take)} == set(film)


@pytest.mark.parametrize(
    "words", [["render", "--resume"], ["retake", "--shot", "2", "--seed", "5"], ["extend"]], ids=lambda words: words[0]
)
@pytest.mark.parametrize("kind", ["film", "killed"])
def test_other_weights_are_refused(capsys: pytest.CaptureFixture[str], copy: Copy, kind: str, words: list[str]) -> None:
    """A take that other weights made is not gone on with: one line names `weights` and both fingerprints, and nothing
    on disk changes."""
    take = copy(kind)
    facts = recorded(take)
    text = (take / "take.json").read_text("utf-8")
    (take / "take.json").write_text(text.replace(facts["settings"]["weights"], OTHER_WEIGHTS), "utf-8")
    script = take.parent / "more.txt"
    script.write_text("Shot 1 (1 block): a big red ring bobs at the top\n")
    before = contents(take.parent)
    code, _, err = longlive(capsys, *words, take, *([script] if words == ["extend"] else []))
    assert code == 2
    assert err.count("\n") == 1 and "weights" in err and OTHER_WEIGHTS in err, err
    assert contents(take.parent) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "3"], "steps was 2, now 3"),
        (["--size", "64x32"], "size was 32x32, now 64x32"),
        (["--kv-format", "nvfp4"], "kv_format was bf16, now nvfp4"),
        (["--guidance", "2"], "guidance was 1.0, now 2.0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_settings_are_refused(
    capsys: pytest.CaptureFixture[str], copy: Copy, words: list[str], said: str
) -> None:
    """A setting that is named again must be the take's: the line tells both values, and nothing on disk changes."""
    take = copy("killed")
    before = contents(take.parent)
    code, _, err = longlive(capsys, "render", "--resume", take, *words)
    assert code == 2 and said in err, err
    assert contents(take.parent) == before


def test_an_edited_script_is_compared(capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    """Of an edited script, --dry-run says what it would sample, and nothing on disk changes."""
    take = copy("killed")
    script = take.parent / "film.txt"
    script.write_text(script.read_text("utf-8").replace("wine", "brown"), "utf-8")
    before = contents(take.parent)
    code, out, err = longlive(capsys, "render", script, "--resume", take, "--dry-run")
    assert code == 0 and "shot 2, 2 of 4 blocks" in out, out + err
    assert contents(take.parent) == before


@pytest.mark.parametrize(
    "words",
    [["retake", "--shot", "1", "--seed", "5"], ["takes", "choose", "--shot", "1", "--version", "0"]],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_given_video_is_known_as_one(capsys: pytest.CaptureFixture[str], copy: Copy, words: list[str]) -> None:
    """It was not sampled, so there is nothing to make again or to choose from."""
    take = copy("video")
    before = contents(take.parent)
    code, _, err = longlive(capsys, *words, take)
    assert code == 2 and "shot 1 is a given video" in err, err
    assert contents(take.parent) == before


def test_a_take_of_comfyui_is_known_as_one(capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    """The command line has not the model that made it, and says where to go on with it."""
    take = copy("comfyui")
    code, _, err = longlive(capsys, "render", "--resume", take)
    assert code == 2 and "was made in ComfyUI" in err, err


# What samples, with the very weights


@pytest.mark.usefixtures("same_weights")
def test_a_killed_film_is_finished(capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    """Only what is missing is made, and the film is that of a render that was never killed. Its script may be named
    again; what the killed process left half-written goes."""
    take, whole = copy("killed"), copy("film")
    before = made_files(take)
    (memory,) = (take / "memory").iterdir()
    torn = memory.with_suffix(".partial")
    torn.write_bytes(b"torn")
    done(capsys, "render", take.parent / "film.txt", "--resume", take)
    assert not torn.exists()
    after = made_files(take)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"shots/002/v0/block_00003.safetensors"}
    errors = [difference(a, b) for a, b in zip(film_latents(take), film_latents(whole), strict=True)]
    assert max(errors) <= TOLERANCE, errors
    assert len(frames(take.parent / "film.mp4")) == planned_frames(take)


@pytest.mark.usefixtures("same_weights")
@pytest.mark.parametrize("kind", COMPLETE)
def test_a_whole_film_is_written_again(capsys: pytest.CaptureFixture[str], copy: Copy, made: Path, kind: str) -> None:
    """A film that was lost is made of the blocks, which stay to the byte, as does the rest of the take; it plays what
    it played."""
    take = copy(kind)
    before = {name: digest for name, digest in contents(take).items() if not name.startswith("footage/")}
    film = take.parent / "film.mp4"
    film.unlink()
    done(capsys, "render", "--resume", take)
    assert contents(take).items() >= before.items()
    assert made_files(take).items() <= before.items()
    again = frames(film)
    assert len(again) == planned_frames(take)
    if kind != "keep":  # whose film is that of another version
        assert (again - frames(made / kind / "film.mp4")).abs().mean() < 1.0


@pytest.mark.usefixtures("same_weights")
def test_ripple(capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    """Shot 2 in a second version: every file of the take stays, two blocks come, and of the film's file what is before
    the shot is copied."""
    take = copy("film")
    before = made_files(take)
    told = done(capsys, "retake", take, "--shot", "2", "--seed", "5")
    after = made_files(take)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {f"shots/002/v1/block_0000{index}.safetensors" for index in (2, 3)}
    assert state(take) == [(1, 0, False, False), (2, 1, False, False)]
    assert "2 of 4 blocks copied" in told
    assert len(frames(take.parent / "film.mp4")) == planned_frames(take)


@pytest.mark.usefixtures("same_weights")
def test_keep_and_back(capsys: pytest.CaptureFixture[str], copy: Copy, made: Path) -> None:
    """Shot 1 in a second version, shot 2 as it was, spliced; then version 0 is chosen, and the film is what it was,
    with nothing sampled."""
    take = copy("film")
    before = made_files(take)
    done(capsys, "retake", take, "--shot", "1", "--seed", "4", "--mode", "keep")
    after = made_files(take)
    assert {name: after[name] for name in before} == before
    assert {name for name in after if name.startswith("shots/")} - set(before) == {
        f"shots/001/v1/block_0000{index}.safetensors" for index in (0, 1)
    }
    assert state(take) == [(2, 1, False, False), (1, 0, True, False)]
    done(capsys, "takes", "choose", take, "--shot", "1", "--version", "0")
    assert state(take) == [(2, 0, False, False), (1, 0, False, False)]
    done(capsys, "render", "--resume", take)
    assert made_files(take) == after
    assert (frames(take.parent / "film.mp4") - frames(made / "film" / "film.mp4")).abs().mean() < 1.0


@pytest.mark.usefixtures("same_weights")
def test_a_lock_holds(capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    """Shot 1 made again by ripple, with shot 3 locked: shot 2 follows, shot 3 stays, spliced."""
    take = copy("keep")
    before = made_files(take)
    done(capsys, "retake", take, "--shot", "1", "--seed", "4")
    after = made_files(take)
    assert {name: after[name] for name in before} == before
    new = {"shots/001/v1/block_00000.safetensors", "shots/002/v3/block_00001.safetensors"}
    assert {name for name in after if name.startswith("shots/")} - set(before) == new
    assert state(take) == [(2, 1, False, False), (4, 3, False, False), (1, 0, True, True)]


@pytest.mark.usefixtures("same_weights")
@pytest.mark.parametrize("kind", ["film", "video"])
def test_extend(capsys: pytest.CaptureFixture[str], copy: Copy, kind: str) -> None:
    """A shot more: every file of the take stays, one block comes behind them."""
    take = copy(kind)
    script = take.parent / "and_more.txt"
    script.write_text("Shot 1 (1 block): a big red ring bobs at the top in front of a plain black wall\n")
    before, blocks = made_files(take), recorded(take)["plan"]["blocks"]
    done(capsys, "extend", take, script)
    after, facts = made_files(take), recorded(take)
    assert {name: after[name] for name in before} == before
    assert {name for name in after if name.startswith("shots/")} - set(before) == {
        f"shots/003/v0/block_{blocks:05}.safetensors"
    }
    assert (facts["plan"]["shots"], facts["plan"]["blocks"]) == (3, blocks + 1)
    assert len(frames(take.parent / "film.mp4")) == planned_frames(take)


@pytest.mark.usefixtures("same_weights")
def test_a_storyboard_becomes_the_film(capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    """Its shots begin with these very blocks, and only the others are made."""
    take = copy("storyboard")
    before = made_files(take)
    assert set(before) == {"shots/001/v0/block_00000.safetensors", "shots/002/v0/block_00002.safetensors"}
    done(capsys, "render", "--resume", take)
    after = blocks_in(take)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(chosen(take)) == 4
    assert len(frames(take.parent / "film.mp4")) == planned_frames(take)


@pytest.mark.usefixtures("same_weights")
def test_what_follows_a_video_is_made_again(capsys: pytest.CaptureFixture[str], copy: Copy) -> None:
    """A lost block behind a given video is made as it was; a lost block of the video is not, and the take says so."""
    take = copy("video")
    given, sampled = chosen(take)
    was = load_file(sampled)["latents"]
    sampled.unlink()
    done(capsys, "render", "--resume", take)
    assert difference(load_file(sampled)["latents"], was) <= TOLERANCE
    given.unlink()
    code, _, err = longlive(capsys, "render", "--resume", take)
    assert code == 2 and given.name in err and "cannot be made again" in err, err


@pytest.mark.usefixtures("same_weights")
@pytest.mark.parametrize("kind", ["film", "nvfp4", "guided"])
def test_memory_is_used_and_rebuilt(capsys: pytest.CaptureFixture[str], copy: Copy, kind: str) -> None:
    """A retake starts from the snapshot in the take. A damaged snapshot is reported, rebuilt from the blocks with the
    same result, and replaced, so that the next retake uses it."""
    healthy, damaged = copy(kind), copy(kind, "damaged")
    (memory,) = (damaged / "memory").iterdir()
    data = bytearray(memory.read_bytes())
    data[-1] ^= 1
    memory.write_bytes(data)
    words = ("--shot", "2", "--seed", "99")
    told = done(capsys, "retake", healthy, *words)
    assert "rebuilt" not in told
    told = done(capsys, "retake", damaged, *words)
    assert memory.name in told and "damaged" in told and "rebuilt" in told
    made, again = film_latents(healthy), film_latents(damaged)
    errors = [difference(a, b) for a, b in zip(made, again, strict=True)]
    assert max(errors) <= TOLERANCE, errors
    assert state(healthy) == state(damaged) == [(1, 0, False, False), (2, 1, False, False)]
    assert "rebuilt" not in done(capsys, "retake", damaged, "--shot", "2", "--seed", "98")  # the file was replaced
