"""Takes that ComfyUI made with older versions of the nodes open, resume and retake, by the prompts of that time.

See `tests/golden/takes/README.md`. The models must be those that made the takes.
"""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from longlive.longlive_core.mini import load_mini
from longlive.longlive_core.take import Take
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .graphs import SHOTS, Prompt, latents
from .host import ROOT, Host
from .run import Run
from .test_takes import sampled

pytestmark = pytest.mark.comfy

TAKES = ROOT / "tests" / "golden" / "takes"
VERSIONS = sorted(path.parent for path in TAKES.glob("*/made_by.json"))
PREFIX, NAME = "old_takes/", "film_00001.take"  # as the prompts of the time have them
RETAKE = "22"
PATIENCE = 300
# Relative L2: another machine's last bits differ.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Old:
    """A take of an older version in the output folder of a server, and the prompts that made it."""

    host: Host
    take: Path
    prompts: dict[str, Prompt]

    def run(self, name: str, **retake: object) -> Run:
        """One of the prompts, perhaps for another retake."""
        prompt = self.prompts[name]
        if retake:
            prompt[RETAKE]["inputs"] |= retake
        run = self.host.run(prompt, PATIENCE)
        assert run.ok, run.error
        return run

    def difference(self, run: Run, films: list[Path]) -> float:
        """The largest relative L2 between the blocks that a run gave and those in files."""
        given = load_mini().vae.normalise(latents(self.host, run)).split(8, dim=2)
        return max(difference(one, load_file(path)["latents"]) for one, path in zip(given, films, strict=True))

    def blocks(self) -> dict[str, str]:
        """Every block on disk, and the digest of its bytes."""
        paths = self.take.rglob("*.safetensors")
        return {str(path.relative_to(self.take)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def film(self) -> list[Path]:
        """The block files of the film as chosen."""
        take = Take.load(self.take)
        return [take.path(spec) for spec in take.plan.blocks]


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, comfy: Host, tmp_path: Path) -> Old:
    """A take in a folder of this test's own. Where it was made on another machine, it is made this machine's."""
    version: Path = request.param
    made_by = json.loads((version / "made_by.json").read_text("utf-8"))
    script = runpy.run_path(str(TAKES / "make_takes.py"))
    if made_by["tensors"] != script["tensors_digest"]():
        pytest.skip("the embedded model has changed since; make_takes.py makes new ones")
    place = f"old_{tmp_path.name}/"
    take = comfy.base / "output" / place / NAME
    shutil.copytree(version / "comfyui" / NAME, take)
    prompts = {
        path.stem: json.loads(path.read_text("utf-8").replace(PREFIX, place))
        for path in (version / "comfyui").glob("*.json")
    }
    here = Old(comfy, take, prompts)
    settle_in(here, same_machine=made_by["cpu"] == script["cpu"]())
    return here


def settle_in(old: Old, same_machine: bool) -> None:
    """Gives the take the fingerprint that its prompts' embeddings have on this machine.

    A take of ComfyUI knows its text encoder by every bit of what that encoded, and the last ones differ where a machine
    computes with other instructions.
    """
    other = old.take.with_name("film_00002.take")
    old.run("save")
    if not other.exists():
        return
    was, now = (json.loads((take / "take.json").read_text("utf-8")) for take in (old.take, other))
    assert now["settings"] | {"text": was["settings"]["text"]} == was["settings"]
    moved = not same_machine or now["machine"] != was["machine"]
    assert moved, "this machine made the take, and now its prompts have another fingerprint"
    shutil.rmtree(other)
    text = was["settings"]["text"], now["settings"]["text"]
    (old.take / "take.json").write_text((old.take / "take.json").read_text("utf-8").replace(*text), "utf-8")
    for path in old.take.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            facts = {name: value.replace(*text) for name, value in file.metadata().items()}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        save_file(tensors, path, facts)


def difference(one: Tensor, other: Tensor) -> float:
    """Relative L2."""
    return ((one - other).norm() / other.norm()).item()


def test_a_film_goes_on_in_its_take(old: Old) -> None:
    """The workflow that made a film finds its take and gives the film as it was first made, with nothing sampled."""
    before = old.blocks()
    old.prompts["save"][SHOTS]["inputs"]["script"] += "\n"  # the same film, and another node to the cache
    run = old.run("save")
    assert not sampled(run)
    assert [path.name for path in old.take.parent.iterdir()] == [NAME]
    assert old.blocks() == before
    first = sorted(old.take.glob("shots/*/v0/*.safetensors"))
    assert len(first) == 3 and old.difference(run, first) < 1e-5


def test_a_take_is_loaded(old: Old) -> None:
    """The film as chosen, with nothing sampled."""
    before = old.blocks()
    run = old.run("load")
    assert not sampled(run) and old.blocks() == before
    assert old.difference(run, old.film()) < 1e-5


def test_a_lost_block_is_made_again(old: Old) -> None:
    """It is the only one that is sampled, and comes out as it was."""
    before, lost = old.blocks(), old.film()[1]
    was = load_file(lost)["latents"].clone()
    lost.unlink()
    run = old.run("load")
    assert sampled(run) == {"shot 2/3 · block 2/3"}
    assert difference(load_file(lost)["latents"], was) <= TOLERANCE
    others = set(before) - {str(lost.relative_to(old.take))}
    after = old.blocks()
    assert {name: after[name] for name in others} == {name: before[name] for name in others}


def test_a_shot_is_retaken(old: Old) -> None:
    """A retake that was made is chosen; another seed makes one shot (keep), or those behind it too (ripple). Every
    file of before stays."""
    before = old.blocks()
    assert not sampled(old.run("retake")) and old.blocks() == before
    assert sampled(old.run("retake", seed=12)) == {"shot 2/3 · block 2/3"}
    assert sampled(old.run("retake", seed=13, mode="ripple")) == {"shot 2/3 · block 2/3", "shot 3/3 · block 3/3"}
    after = old.blocks()
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 3
    assert [len(shot.versions) for shot in Take.load(old.take).shots] == [1, 4, 2]
