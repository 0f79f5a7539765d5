"""The script of a film in the making, changed over HTTP: taken up at the next shot, refused from elsewhere."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import torch

from .graphs import SAMPLER, latent, latents
from .host import Host
from .run import Event, Run

pytestmark = pytest.mark.comfy

PATIENCE = 300
SCRIPT = """hero: a big red ring

Shot 1 (8 blocks): {hero} sways on the left in front of a plain forest wall
Shot 2 (2 blocks): {hero} circles in the middle against a striped navy wall
Shot 3 (1 block): {hero} rests on the right against a plain wine wall
"""
CHANGED = SCRIPT.replace("against a striped navy", "against a checked brown").replace("wine", "grey")
PATH = f"/longlive/takes/{SAMPLER}/script"


def ask(host: Host, path: str, content: object = None, **headers: str) -> tuple[int, Any]:
    data = None if content is None else json.dumps(content).encode()
    request = Request(host.url + path, data, {"Content-Type": "application/json", **headers})
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def test_a_film_follows_its_script_from_the_next_shot_on(comfy: Host) -> None:
    """The changed film is the film of the changed script, to the bit; what may not change is refused in words."""
    said: list[tuple[int, Any]] = []

    def change(run: Run, _: Event) -> None:
        states = run.progress[SAMPLER]
        if said or not states or states[-1]["max"] == 1 or states[-1]["value"] < 1:
            return
        said.append(ask(comfy, "/longlive/takes"))
        said.append(ask(comfy, PATH))
        for elsewhere in ("https://example.com", "http://127.0.0.1:1", "null"):
            said.append(ask(comfy, PATH, {"script": CHANGED}, Origin=elsewhere))
        said.append(ask(comfy, PATH, {"script": CHANGED}, **{"Sec-Fetch-Site": "cross-site"}))
        said.append(ask(comfy, PATH, {"script": SCRIPT.replace("sways", "hops")}))
        said.append(ask(comfy, PATH, {"script": CHANGED.replace("(1 block)", "(2 blocks)")}))
        said.append(ask(comfy, PATH, {"script": "Shot 1: {nobody}"}))
        said.append(ask(comfy, PATH, {"script": 3}))
        own = comfy.url
        said.append(ask(comfy, PATH, {"script": CHANGED, "version": 0}, Origin=own))
        said.append(ask(comfy, PATH, {"script": SCRIPT, "version": 0}, Origin=own))

    live = comfy.run(latent(SCRIPT, 41), PATIENCE, on_event=change)
    assert live.ok, live.error
    codes, answers = zip(*said, strict=True)
    assert codes == (200, 200, 403, 403, 403, 403, 409, 400, 400, 400, 200, 409), said
    assert answers[0] == [{"id": SAMPLER, "version": 0, "begun": 1, "shots": 3}]
    assert "{hero} circles in the middle" in answers[1]["script"]
    assert "shot 1 has begun: change shots from 2 on" in answers[6]["error"]
    assert "shot 3 has another length" in answers[7]["error"]
    assert "line 1" in answers[8]["error"] and answers[10]["version"] == 1
    whole = comfy.run(latent(CHANGED, 41), PATIENCE)
    assert whole.ok, whole.error
    assert torch.equal(latents(comfy, live), latents(comfy, whole))
    assert ask(comfy, "/longlive/takes") == (200, [])
    assert ask(comfy, PATH)[0] == 404
