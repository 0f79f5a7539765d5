"""The script of a film in the making, changed over HTTP: taken up at the next shot, refused from elsewhere."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import av
import pytest
import torch
from longlive.longlive_core.take import Take

from .browser import Front
from .graphs import MINI, SAMPLER, film, film_path, kept_latent, latent, latents, node, stream
from .host import ROOT, Host
from .run import Event, Run

pytestmark = pytest.mark.comfy

TIMEOUT_SECONDS = 300
SCRIPT = """hero: a big red ring

Shot 1 (8 blocks): {hero} sways on the left in front of a plain forest wall
Shot 2 (2 blocks): {hero} circles in the middle against a striped navy wall
Shot 3 (1 block): {hero} rests on the right against a plain wine wall
"""
CHANGED = SCRIPT.replace("against a striped navy", "against a checked brown").replace("wine", "grey")
FILMS = "/longlive/films"
PATH = f"{FILMS}/{SAMPLER}/script"


def ask(host: Host, path: str, content: object = None, **headers: str) -> tuple[int, Any]:
    data = None if content is None else json.dumps(content).encode()
    request = Request(host.url + path, data, {"Content-Type": "application/json", **headers})
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def running(host: Host) -> tuple[int, Any]:
    """The films whose scripts can be changed."""
    code, films = ask(host, FILMS)
    return code, [film for film in films if film["scripts"]]


def test_a_film_follows_its_script_from_the_next_shot_on(comfy: Host) -> None:
    """The changed film is the film of the changed script, to the bit; what may not change is refused in words."""
    answers_so_far: list[tuple[int, Any]] = []

    def change(run: Run, _: Event) -> None:
        states = run.progress[SAMPLER]
        if answers_so_far or not states or states[-1]["max"] == 1 or states[-1]["value"] < 1:
            return
        answers_so_far.append(running(comfy))
        answers_so_far.append(ask(comfy, PATH))
        for elsewhere in ("https://example.com", "http://127.0.0.1:1", "null"):
            answers_so_far.append(ask(comfy, PATH, {"script": CHANGED}, Origin=elsewhere))
        answers_so_far.append(ask(comfy, PATH, {"script": CHANGED}, **{"Sec-Fetch-Site": "cross-site"}))
        answers_so_far.append(ask(comfy, PATH, {"script": SCRIPT.replace("sways", "hops")}))
        answers_so_far.append(ask(comfy, PATH, {"script": CHANGED.replace("(1 block)", "(2 blocks)")}))
        answers_so_far.append(ask(comfy, PATH, {"script": "Shot 1: {nobody}"}))
        answers_so_far.append(ask(comfy, PATH, {"script": 3}))
        own = comfy.url
        answers_so_far.append(ask(comfy, PATH, {"script": CHANGED, "version": 0}, Origin=own))
        answers_so_far.append(ask(comfy, PATH, {"script": SCRIPT, "version": 0}, Origin=own))

    live = comfy.run(latent(SCRIPT, 41), TIMEOUT_SECONDS, on_event=change)
    assert live.ok, live.error
    codes, answers = zip(*answers_so_far, strict=True)
    assert codes == (200, 200, 403, 403, 403, 403, 409, 400, 400, 400, 200, 409), answers_so_far
    assert [film["scripts"] for film in answers[0]] == [[{"node": SAMPLER, "version": 0, "begun": 1, "shots": 3}]]
    assert "{hero} circles in the middle" in answers[1]["script"]
    assert "shot 1 has begun: change shots from 2 on" in answers[6]["error"]
    assert "shot 3 has another length" in answers[7]["error"]
    assert "line 1" in answers[8]["error"] and answers[10]["version"] == 1
    assert_kept(comfy, live)
    whole = comfy.run(latent(CHANGED, 41), TIMEOUT_SECONDS)
    assert whole.ok, whole.error
    assert torch.equal(latents(comfy, live), latents(comfy, whole))
    assert running(comfy) == (200, [])
    assert ask(comfy, PATH)[0] == 404


def test_the_film_holds_the_script_that_it_followed(comfy: Host) -> None:
    """Its prompt and its workflow are those of the changed script, as a canvas opens them from the file."""

    def change(run: Run, _: Event) -> None:
        states = run.progress[SAMPLER]
        if states and states[-1]["max"] > 1 and 1 <= states[-1]["value"] < states[-1]["max"]:
            ask(comfy, PATH, {"script": CHANGED, "version": 0})

    prompt = film(SCRIPT, 42)
    script = next(id for id, one in prompt.items() if one["class_type"] == "LongLiveShotScript")
    workflow = {"id": "live", "nodes": [{"id": int(script), "widgets_values": [SCRIPT, 24.0]}]}
    extra = {"extra_pnginfo": {"workflow": workflow}}
    run = comfy.run(prompt, TIMEOUT_SECONDS, extra_data=extra, on_event=change)
    assert run.ok, run.error
    with av.open(str(film_path(comfy, run))) as container:
        saved = {name: json.loads(container.metadata[name]) for name in ("prompt", "workflow")}
    assert saved["prompt"][script]["inputs"]["script"] == CHANGED
    assert saved["workflow"]["nodes"][0]["widgets_values"] == [CHANGED, 24.0]


def assert_kept(host: Host, live: Run) -> None:
    """The film as it was made goes into a take of its own, which plays with the same text encoder."""
    save = node("LongLiveSaveTake", stream=[SAMPLER, 0], name_prefix="takes/live")
    run = host.run({**stream(SCRIPT, 41), "20": save, **kept_latent(["20", 0])}, TIMEOUT_SECONDS)
    assert run.ok, run.error
    assert torch.equal(latents(host, run), latents(host, live))
    take = Take.load(host.base / "output" / "takes" / "live_00001.take")
    assert take.complete and "checked brown" in take.script.format()
    take.path(take.plan.blocks[-1]).unlink()
    load = node("LongLiveLoadTake", take="takes/live_00001.take", model=[MINI, 0], clip=[MINI, 1])
    again = host.run({MINI: node("LongLiveMini"), "21": load, **kept_latent(["21", 0])}, TIMEOUT_SECONDS)
    assert again.ok, again.error
    assert torch.equal(latents(host, again), latents(host, live))


def await_films(host: Host, count: int, patience: float = 60) -> None:
    end = time.monotonic() + patience
    while len(running(host)[1]) != count:
        assert time.monotonic() < end, f"not {count} films after {patience} s"
        time.sleep(0.05)


MENU = """() => {
    const node = app.graph.nodes.find((node) => node.comfyClass === "LongLiveShotScript")
    const items = app.extensions.find(({ name }) => name === "LongLive.Live").getNodeMenuItems(node)
    return { node, items: items.filter((item) => item) }
}"""


def test_the_script_node_sends_its_text(page: Front) -> None:
    """From the node's menu, while the film is made: a message says from which shot on, or that nothing is made."""
    long = SCRIPT.replace("(8 blocks)", "(60 blocks)")
    page.load(json.loads((ROOT / "workflows" / "LongLive 01 Text to film (Mini).json").read_text("utf-8")))
    found = "node.widgets.find(({ name }) => name === 'script')"
    write = f"(text) => {{ const {{ node }} = ({MENU})(); {found}.value = text }}"
    send = f"async () => {{ const {{ items }} = ({MENU})(); await items[0].callback(); return items[0].content }}"
    toast = page.page.locator(".p-toast-message")
    page.page.evaluate(write, long)
    assert page.page.evaluate(send) == "Send the script to the running film"
    toast.filter(has_text="No film of this script is being made").wait_for(timeout=10_000)
    page.page.evaluate("async () => { await app.queuePrompt(0) }")
    await_films(page.host, 1)
    page.page.evaluate(write, long.replace("wine", "grey"))
    page.page.evaluate(send)
    toast.filter(has_text="The film follows this script from shot 2 on").wait_for(timeout=10_000)
    page.page.evaluate(write, long.replace("sways", "hops"))
    page.page.evaluate(send)
    toast.filter(has_text="shot 1 has begun").wait_for(timeout=10_000)
    page.host.interrupt()
    await_films(page.host, 0)
    assert page.own_errors() == []


def test_a_film_in_a_subgraph_is_found(page: Front) -> None:
    """Its node has the ids of the graphs around it, as 12:5, on the server; an id of its own goes before that."""
    page.load(json.loads((ROOT / "workflows" / "LongLive 01 Text to film (Mini).json").read_text("utf-8")))
    asked = page.page.evaluate(f"""async () => {{
        const {{ node, items }} = ({MENU})()
        const {{ api }} = window.comfyAPI.api
        const {{ fetchApi }} = api
        const asked = []
        for (const ids of [["9999:1", `12:${{node.id}}`], [`12:${{node.id}}`, `${{node.id}}`], ["9999"]]) {{
            api.fetchApi = async (path, options) => {{
                const posts = options.method === "POST"
                if (posts) asked.push(path)
                const films = [{{ key: "film", scripts: ids.map((node) => ({{ node, version: 0 }})) }}]
                return {{ ok: true, json: async () => posts ? {{ begun: 1 }} : films }}
            }}
            try {{ await items[0].callback() }} finally {{ api.fetchApi = fetchApi }}
        }}
        return [String(node.id), ...asked]
    }}""")
    own = asked[0]
    assert asked[1:] == [f"{FILMS}/film/script?node=12%3A{own}", f"{FILMS}/film/script?node={own}"]
