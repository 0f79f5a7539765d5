"""Makes takes of every kind with the command line of this tree, for the tests of takes that an older version made.

    python tests/golden/takes/make_takes.py FOLDER

FOLDER must be new: the takes of earlier versions stay as they are, since they are what the tests are about. README.md
beside this script lists the kinds. The films are 32x32 pixels, one or two blocks a shot, two steps a block.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[3]
ASSETS = ROOT / "longlive_core" / "assets" / "mini"
SCRIPTS = {
    "film.txt": """\
hero: a big red ring

Shot 1 (2 blocks): {hero} sways on the left in front of a striped navy wall
Shot 2 (2 blocks): it bobs in the middle against a plain wine wall @seed=7
""",
    "short.txt": """\
hero: a small blue square

Shot 1 (1 block): {hero} circles at the top in front of a checked forest wall
Shot 2 (1 block): {hero} stays still on the right in front of a plain grey wall
""",
    "three.txt": """\
hero: a big green triangle

Shot 1 (1 block): {hero} sways on the left in front of a plain black wall
Shot 2 (1 block): {hero} bobs at the bottom against a striped brown wall
Shot 3 (1 block): the same hero circles in the middle against a plain navy wall
""",
    "clock.txt": """\
style: soft light
hero: a small yellow circle

[0s-1.3s]: {hero} circles at the top in front of a checked forest wall
---
[1.3s-2.6s]: {hero} stays still on the right @seed=21
""",
    "one.txt": "hero: a big red ring\n\nShot 1 (1 block): {hero} stays still in the middle\n",
    "more.txt": "Shot 1 (1 block): a big red ring bobs at the top in front of a checked grey wall @seed=3\n",
    "goes_on.txt": "Shot 1 (1 block) continue: the same hero bobs at the top\n",
}
SETTINGS = "--size 32x32 --steps 2 --threads 1"
KINDS = {
    "film": ["render film.txt -o film.mp4 {settings}"],
    "killed": ["render film.txt -o film.mp4 {settings}"],
    "ripple": [
        "render short.txt -o film.mp4 {settings}",
        "retake film.take --shot 1 --seed 5 --threads 1",
    ],
    "keep": [
        "render three.txt -o film.mp4 {settings}",
        "retake film.take --shot 2 --seed 9 --mode keep --threads 1",
        "takes lock film.take --shot 3",
        "retake film.take --shot 2 --seed 10 --mode keep --threads 1",
        "takes choose film.take --shot 2 --version 1",
    ],
    "storyboard": ["render film.txt -o film.mp4 --preview {settings}"],
    "extended": [
        "render one.txt -o film.mp4 {settings}",
        "extend film.take more.txt --threads 1",
    ],
    "video": [
        "render one.txt -o clip.mp4 --no-take {settings}",
        'extend clip.mp4 goes_on.txt -o film.mp4 --prompt "a big red ring stays still in the middle" {settings}',
    ],
    "nvfp4": ["render short.txt -o film.mp4 --kv-format nvfp4 {settings}"],
    "guided": [
        'render clock.txt -o film.mp4 --guidance 2 --negative "a big red ring" --window 24 --no-shot-sink '
        "--rope-offset 4 --seed 11 --quality medium {settings}"
    ],
}  # fmt: skip
# A kind that is killed in mid-film: the process ends when this file appears.
KILLED = {"killed": "film.take/shots/002/v0/block_00002.safetensors"}


def make(folder: Path) -> None:
    """Every kind of take in a folder of its own, and `made_by.json`, which says what made them."""
    folder.mkdir(parents=True)
    for kind, commands in KINDS.items():
        place = folder / kind
        place.mkdir()
        for command in commands:
            words = shlex.split(command.format(settings=SETTINGS))
            for word in words:
                if word in SCRIPTS:
                    (place / word).write_text(SCRIPTS[word], "utf-8")
            run(place, words, KILLED.get(kind))
    (folder / "made_by.json").write_text(json.dumps(made_by(folder), indent=2) + "\n", "utf-8")


def run(place: Path, words: list[str], killed_at: str | None) -> None:
    """One command of the command line in a folder, perhaps killed when a file appears in it."""
    # The package without an install: `longlive` is this tree.
    start = (
        "import sys, types; package = types.ModuleType('longlive'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['longlive'] = package; from longlive.longlive_core.cli.main import main; "
        "sys.exit(main(sys.argv[2:]))"
    )
    with subprocess.Popen([sys.executable, "-c", start, str(ROOT), *words], cwd=place) as process:
        if killed_at is not None:
            while not (place / killed_at).is_file():
                if process.poll() is not None:
                    raise RuntimeError(f"{shlex.join(words)} ended before it could be killed")
                time.sleep(0.001)
            process.kill()
    if process.returncode and killed_at is None:
        raise RuntimeError(f"{shlex.join(words)} failed")


def made_by(folder: Path) -> dict[str, str]:
    """What made the takes: the commit, what it ran on and with, and the embedded model's weights."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    take = json.loads((folder / "film" / "film.take" / "take.json").read_text("utf-8"))
    return {
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": cpu(),
        "weights": take["settings"]["weights"],
        "tensors": tensors_digest(),
    }


def cpu() -> str:
    """What this machine's last bits depend on: its kind of processor and the instructions that torch uses."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text("utf-8").splitlines() if facts.is_file() else []
    kind = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{kind}, {torch.backends.cpu.get_cpu_capability()}"


def tensors_digest() -> str:
    """Fingerprint of the embedded model's tensors, whatever they are called and however their files are laid out.

    It tells a model that was trained anew from one that this tree merely loads, names or fingerprints otherwise.
    """
    digests: list[str] = []
    for path in ASSETS.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                value = file.get_tensor(name)
                digest = hashlib.sha256(f"{tuple(value.shape)} {value.dtype}".encode())
                digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
                digests.append(digest.hexdigest())
    return hashlib.sha256(" ".join(sorted(digests)).encode()).hexdigest()[:32]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
