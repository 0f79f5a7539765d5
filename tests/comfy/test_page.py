"""What a user sees on the canvas: errors, sizes, and that nothing is made twice."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from .browser import Front
from .graphs import SAMPLER, SHORT, film
from .host import ROOT, Host, Refused
from .run import Json, read_event

if TYPE_CHECKING:
    from websocket import WebSocket

pytestmark = pytest.mark.comfy

TEMPLATE = ROOT / "workflows" / "LongLive 01 Text to film (Mini).json"
BAD = "hero: a big red ring\n\nShot 1 (4s): {hera} sways"
# The node of a kind, and a function that sets one of its widgets.
FIND = """
    const find = (type) => app.graph.nodes.find(({ comfyClass }) => comfyClass === type)
    const set = (node, name, value) => { node.widgets.find((widget) => widget.name === name).value = value }
"""


def load(page: Front, script: str = SHORT) -> None:
    """The template of one film, with a script and a film of 64x64."""
    page.load(json.loads(TEMPLATE.read_text("utf-8")))
    page.page.evaluate(
        f"""(script) => {{ {FIND}
            set(find("LongLiveShotScript"), "script", script)
            for (const side of ["width", "height"]) set(find("LongLiveStreamingSampler"), side, 64)
        }}""",
        script,
    )


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_a_script_error_is_one_error_that_can_be_read(
    page: Front, renderer: Literal["classic", "vue"], tmp_path: Path
) -> None:
    """The front-end's message has line, column and remedy, once, and so has the strip of shots on the node."""
    load(page, BAD)
    page.set_renderer(renderer)
    end = page.queue()
    assert end["type"] == "refused"
    ((_, entry),) = end["node_errors"].items()
    (error,) = entry["errors"]
    assert error["details"].startswith("line 3, column 14")
    message = page.page.get_by_test_id("error-overlay")
    message.wait_for()
    page.screenshot(tmp_path / f"error_{renderer}.png")
    assert "line 3, column 14" in message.inner_text()
    assert "{hera}" in message.inner_text()
    assert message.inner_text().count("column 14") == 1
    cut = "(message) => { const text = message.querySelector('p'); return text.scrollHeight > text.clientHeight + 1 }"
    assert not message.evaluate(cut)
    remark = page.page.locator(".longlive-strip li").filter(has_text="unknown name {hera}")
    remark.get_by_role("button", name="line 3").wait_for()
    assert page.own_errors() == []


def test_the_server_names_a_script_error_once(comfy: Host) -> None:
    """A script that asks over the API gets one error, of the node to change."""
    with pytest.raises(Refused) as refused:
        comfy.queue(film(BAD))
    ((_, entry),) = refused.value.node_errors.items()
    assert entry["class_type"] == "LongLiveShotScript"
    assert [error["details"][:17] for error in entry["errors"]] == ["line 3, column 14"]


def test_an_error_over_a_wire_can_be_read(page: Front, tmp_path: Path) -> None:
    """A script that comes over a wire is refused when it runs: the message says why, and so does the node."""
    load(page)
    page.page.evaluate(
        f"""(script) => {{ {FIND}
            const text = LiteGraph.createNode("PrimitiveStringMultiline"), shots = find("LongLiveShotScript")
            app.graph.add(text)
            set(text, "value", script)
            text.connect(0, shots, shots.findInputSlot("script"))
        }}""",
        BAD,
    )
    assert page.queue()["type"] == "execution_error"
    toast = page.page.locator(".p-toast-message").filter(has_text="line 3, column 14")
    toast.wait_for()
    page.screenshot(tmp_path / "wired_error.png")
    assert toast.count() == 1


def runs(page: Front) -> list[list[str]]:
    """Of each prompt so far, the nodes that ran again."""
    histories = page.host.get("/history")
    ran: list[list[str]] = []
    for entry in histories.values():
        messages = dict(entry["status"]["messages"])
        cached = set(messages["execution_cached"]["nodes"])
        ran.append(sorted(set(entry["prompt"][2]) - cached))
    return ran


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_the_same_graph_queued_again_does_nothing(page: Front, renderer: Literal["classic", "vue"]) -> None:
    """After the node shows its film, no node runs a second time, and the front-end adds no preview to the prompt."""
    load(page, SHORT + f" near the {renderer} frame")
    page.set_renderer(renderer)
    assert page.queue()["type"] == "execution_success"
    page.page.wait_for_timeout(1500)  # the front-end loads the film, then adds its preview to the node
    sent = page.to_api()
    for _ in range(2):
        assert page.queue()["type"] == "execution_success"
    *_, first, second, third = runs(page)
    assert first
    assert second == third == [], sent
    keys = {key for one in sent.values() for key in one["inputs"]}
    assert "video-preview" not in keys


def test_unknown_inputs_do_not_defeat_the_cache(comfy: Host) -> None:
    """Whatever a front-end adds to our nodes, and its previews on any node, are not part of the graph."""
    prompt = film(SHORT + " once", width=64, height=64)
    assert comfy.run(prompt).ok
    for extra in ({"video-preview": ""}, {"$$comfy_animation_preview": ""}, {"note": "mine", "preview": [1, 2, 3]}):
        more = {key: {**one, "inputs": {**one["inputs"], **extra}} for key, one in prompt.items()}
        again = comfy.run(more)
        assert again.ok
        assert again.executed == [], extra


def heard_until_silent(socket: WebSocket, seconds: float) -> list[str]:
    """The types of the messages of a socket, until none comes for some seconds."""
    from websocket import WebSocketTimeoutException

    socket.settimeout(seconds)
    heard: list[str] = []
    with suppress(WebSocketTimeoutException):
        while True:
            heard.append(read_event(socket.recv(), 0).type)
    return heard


def test_progress_is_sent_to_the_client_that_asked(comfy: Host) -> None:
    """Another open page hears nothing of the film: no line of text, no preview, no progress."""
    import websocket

    other = websocket.create_connection(f"ws://{comfy.address}/ws?clientId={uuid.uuid4().hex}", timeout=5)
    try:
        run = comfy.run(film(SHORT + " alone", width=64, height=64))
        assert run.ok
        assert run.texts[SAMPLER]
        heard = heard_until_silent(other, 0.5)
        assert set(heard) <= {"status", "feature_flags"}, heard
        # A prompt of no client has nobody to show text to.
        comfy.queue(film(SHORT + " nobody", width=64, height=64))
        heard += heard_until_silent(other, 3)
        assert "text" not in heard, heard
    finally:
        other.close()


def size(page: Front) -> list[int]:
    return page.page.evaluate(
        """() => ["width", "height"].map((side) => window.sampler.widgets.find(({ name }) => name === side).value)"""
    )


ADD = """({ models, kind }) => {
    // The front-end gives a node that takes the id of a removed one its values: nothing is removed.
    const add = (type) => { const node = LiteGraph.createNode(type); app.graph.add(node); return node }
    window.sampler = add(kind)
    window.models = models.map(add)
    for (const [index, model] of window.models.slice(1).entries())
        window.models[index].connect(0, model, model.findInputSlot("model"))
    const last = window.models.at(-1)
    if (last) last.connect(0, window.sampler, window.sampler.findInputSlot("model"))
}"""


@pytest.mark.parametrize("kind", ["LongLiveStreamingSampler", "LongLiveShot", "LongLiveExtendVideo"])
def test_a_new_sampler_has_the_size_of_its_model(page: Front, kind: str) -> None:
    """Mini's size behind Mini, also through a LoRA; that of the 5B behind the loader; the user's own stays."""
    for models, wanted in (
        (["LongLiveMini"], [128, 128]),
        (["LongLiveMini", "LongLiveDMDLora"], [128, 128]),
        (["LongLiveMini", "LoraLoaderModelOnly", "LongLiveDMDLora"], [128, 128]),
        (["LongLiveModelLoader"], [1280, 704]),
        (["UNETLoader"], [1280, 704]),
        ([], [1280, 704]),
    ):
        page.page.evaluate(ADD, {"models": models, "kind": kind})
        assert size(page) == wanted, models
    page.page.evaluate(ADD, {"models": ["LongLiveMini"], "kind": kind})
    page.page.evaluate(
        """() => { const loader = LiteGraph.createNode("LongLiveModelLoader"); app.graph.add(loader)
            loader.connect(0, window.sampler, window.sampler.findInputSlot("model")) }"""
    )
    assert size(page) == [1280, 704]
    page.page.evaluate(
        """() => { window.sampler.widgets.find(({ name }) => name === "width").value = 832
            window.models[0].connect(0, window.sampler, window.sampler.findInputSlot("model")) }"""
    )
    assert size(page) == [832, 704]
    assert page.own_errors() == []


def test_a_loaded_size_stays(page: Front) -> None:
    """A workflow keeps its sizes, and so does the model's choice after it was saved and loaded."""
    page.page.evaluate(ADD, {"models": ["LongLiveMini"], "kind": "LongLiveStreamingSampler"})
    page.page.evaluate("() => { window.sampler.widgets.find(({ name }) => name === 'width').value = 1280 }")
    saved: Json = page.to_workflow()
    page.load(saved)
    kind = "LongLiveStreamingSampler"
    page.page.evaluate("(kind) => { window.sampler = app.graph.nodes.find(({ type }) => type === kind) }", kind)
    assert size(page) == [1280, 128]


@pytest.mark.parametrize(("typed", "becomes"), [(100, 96), (130, 128), (1281, 1280), (700, 704)])
def test_a_rounded_size_is_said(page: Front, typed: int, becomes: int) -> None:
    """A width that is no multiple of 32 is rounded by the front-end, and a message says to what; others are not."""
    page.page.evaluate(ADD, {"models": [], "kind": "LongLiveStreamingSampler"})
    type_in = """(value) => {
        const widget = window.sampler.widgets.find(({ name }) => name === "width")
        widget.setValue(value, { e: {}, node: window.sampler, canvas: app.canvas })
    }"""
    page.page.evaluate(type_in, 640)
    page.page.evaluate(type_in, typed)
    toast = page.page.locator(".p-toast-message")
    toast.filter(has_text=f"width {typed} becomes {becomes}").wait_for(timeout=5000)
    assert toast.count() == 1
    assert size(page)[0] == becomes


def test_a_rounded_size_is_said_in_nodes_2(page: Front) -> None:
    """Typed into the node that Nodes 2.0 draws, a width is rounded and said too."""
    page.page.evaluate(ADD, {"models": [], "kind": "LongLiveStreamingSampler"})
    page.set_renderer("vue")
    width = page.page.locator("[data-node-id] input").first
    width.fill("100")
    width.press("Enter")
    page.page.locator(".p-toast-message").filter(has_text="width 100 becomes 96").wait_for(timeout=5000)
    assert size(page)[0] == 96
