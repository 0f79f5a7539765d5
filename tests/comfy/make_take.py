"""Makes a take with LongLive Save Take and LongLive Retake, for the tests of takes that an older version made.

For developers; the tests do not run it:

    cd tests && COMFYUI_PATH=… COMFYUI_PYTHON=… python -m comfy.make_take FOLDER

FOLDER must be new. It gets the take, `film_00001.take`, and the prompts that a later version must still run, in API
form: `save.json` and `retake.json`, which made it, and `load.json`.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import conftest  # noqa: F401  (makes `longlive` importable)

from .graphs import MINI, SAMPLER, Prompt, kept_latent, node, stream
from .host import checkout, serve

PREFIX = "old_takes/film"
NAME = f"{PREFIX}_00001.take"
SCRIPT = """hero: a big red ring

Shot 1 (1 block): {hero} sways on the left in front of a plain forest wall
Shot 2 (1 block): {hero} circles in the middle against a striped navy wall
Shot 3 (1 block): {hero} rests on the right against a plain wine wall
"""


def prompts() -> dict[str, Prompt]:
    """A film that is kept; its take from disk; and that with its second shot made again."""
    save = node("LongLiveSaveTake", stream=[SAMPLER, 0], name_prefix=PREFIX)
    load = node("LongLiveLoadTake", take=NAME, model=[MINI, 0], clip=[MINI, 1])
    retake = node(
        "LongLiveRetake", take=["21", 2], model=[MINI, 0], clip=[MINI, 1], shot=2, seed=9, prompt="", mode="keep"
    )
    film = stream(SCRIPT, width=32, height=32, steps=2)
    loaded = {MINI: node("LongLiveMini"), "21": load}
    return {
        "save": {**film, "20": save, **kept_latent(["20", 0])},
        "load": {**loaded, **kept_latent(["21", 0])},
        "retake": {**loaded, "22": retake, **kept_latent(["22", 0])},
    }


def make(folder: Path) -> None:
    """The take and the prompts."""
    comfy = checkout()
    if comfy is None:
        raise FileNotFoundError("no ComfyUI: set COMFYUI_PATH to a checkout")
    folder.mkdir(parents=True)
    for name, prompt in prompts().items():
        (folder / f"{name}.json").write_text(json.dumps(prompt, indent=2) + "\n", "utf-8")
    with tempfile.TemporaryDirectory() as base, serve(comfy, Path(base)) as host:
        for name in ("save", "retake"):
            run = host.run(prompts()[name])
            if not run.ok:
                raise RuntimeError(f"{name} failed: {run.error}")
        made = host.base / "output" / NAME
        shutil.copytree(made, folder / made.name)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
