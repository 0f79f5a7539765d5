"""The harness itself: the pack loads, and a prompt's events reach the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from .browser import Front
from .host import Host, Refused, Start
from .host import checkout as find_checkout

pytestmark = pytest.mark.comfy

REPORTER = """
import time
from PIL import Image
from comfy.utils import ProgressBar
from server import PromptServer

class Reporter:
    INPUTS = {"required": {"steps": ("INT", {"max": 1000})}, "hidden": {"id": "UNIQUE_ID"}}
    INPUT_TYPES = classmethod(lambda cls: cls.INPUTS)
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "report"

    def report(self, steps, id):
        bar = ProgressBar(steps, node_id=id)
        for step in range(steps):
            PromptServer.instance.send_progress_text(f"step {step}", id)
            bar.update_absolute(step + 1, steps, ("PNG", Image.new("RGB", (8, 8)), None))
            time.sleep(0.01)
        return ()

NODE_CLASS_MAPPINGS = {"Reporter": Reporter}
"""


def pictures(size: int, color: int) -> dict[str, dict[str, object]]:
    """A prompt of core nodes: an empty image, saved."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": size, "height": 64, "batch_size": 1, "color": color}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_the_pack_loads(comfy: Host) -> None:
    """The server lists the nodes there are; the import left no complaint, and one line on which kernels run."""
    assert "EmptyImage" in comfy.get("/object_info")
    log = comfy.log.read_text("utf-8")
    assert "custom_nodes/longlive" in log
    assert "IMPORT FAILED" not in log
    assert "LongLive could not load" not in log
    assert log.count("LongLive kernels: eager (no CUDA device)") == 1


def test_a_prompt_runs_to_its_end(comfy: Host) -> None:
    """Every node runs once, its states and outputs are heard in order; asked again, all comes from the cache."""
    run = comfy.run(pictures(64, 255))
    assert run.ok
    assert run.executed == ["1", "2"]
    assert run.progress["1"][-1]["state"] == "finished"
    assert [event.seconds for event in run.events] == sorted(event.seconds for event in run.events)
    assert 0 < run.seconds < 60
    (image,) = run.outputs["2"]["images"]
    assert comfy.file(image).read_bytes().startswith(b"\x89PNG")
    again = comfy.run(pictures(64, 255))
    assert again.ok
    assert again.executed == []
    assert sorted(again.cached) == ["1", "2"]
    assert again.outputs == run.outputs


def test_a_refused_prompt_names_its_nodes(comfy: Host) -> None:
    """A prompt that does not validate is not run; the refusal tells node, input and limit."""
    with pytest.raises(Refused, match="1 EmptyImage: Value 0 smaller than min of 1: width") as refused:
        comfy.queue(pictures(0, 255))
    assert list(refused.value.node_errors) == ["1"]


def test_a_node_that_fails_is_an_error_of_the_run(comfy: Host, tmp_path: Path) -> None:
    """An uploaded image is what LoadImage reads; what it raises ends the run with its id, and the next prompt runs."""
    good = comfy.file(comfy.run(pictures(80, 0x0000FF)).outputs["2"]["images"][0])
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    load = {name: {"class_type": "LoadImage", "inputs": {"image": comfy.upload_image(name)}} for name in (bad, good)}
    run = comfy.run(pictures(64, 0) | {"1": load[bad]})
    assert run.error
    assert run.error["node_id"] == "1"
    assert not run.ok
    assert comfy.run(pictures(64, 0) | {"1": load[good]}).ok


def test_reports_are_heard_and_a_prompt_is_interrupted(start: Start, tmp_path: Path) -> None:
    """Steps, texts and previews of a node arrive under its id; an interrupt at the first preview ends the run."""
    (tmp_path / "__init__.py").write_text(REPORTER)
    with start(pack=tmp_path) as host:
        prompt = {"7": {"class_type": "Reporter", "inputs": {"steps": 3}}}
        run = host.run(prompt)
        assert run.ok
        assert [state["value"] for state in run.progress["7"]] == [0, 1, 2, 3, 3]
        assert run.texts["7"] == ["step 0", "step 1", "step 2"]
        assert [preview.image().size for preview in run.previews["7"]] == [(8, 8)] * 3
        assert run.previews["7"][0].metadata["prompt_id"] == run.prompt_id
        assert run.first_preview == run.previews["7"][0].seconds
        prompt["7"]["inputs"]["steps"] = 1000
        run = host.run(
            prompt, 30, on_event=lambda run, event: event.type == "preview" and host.interrupt(run.prompt_id)
        )
        assert run.interrupted
        assert not run.ok


def test_the_process_is_seen(comfy: Host) -> None:
    """Threads and memory are those of the server."""
    assert comfy.threads() > 1
    assert 50_000_000 < comfy.rss() < 8_000_000_000


def test_a_path_without_comfyui_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A COMFYUI_PATH that is no checkout is an error: the tests are not skipped silently."""
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="COMFYUI_PATH"):
        find_checkout()


GRAPH = {
    "version": 0.4,
    "last_node_id": 2,
    "last_link_id": 1,
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    "nodes": [
        {
            "id": 1,
            "type": "EmptyImage",
            "pos": [100, 150],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
            "widgets_values": [96, 64, 1, 0x204060],
        },
        {
            "id": 2,
            "type": "PreviewImage",
            "pos": [500, 150],
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
        },
    ],
}


def test_the_page_opens_without_our_complaints(page: Front) -> None:
    """The front-end comes up, lists templates and closes them, and no console error names a file of the pack."""
    assert page.to_api() == {}
    assert page.open_templates().get_by_text("Text to Video").count()
    page.dismiss()
    assert page.page.locator("[role=dialog]:visible").count() == 0
    assert page.own_errors() == []


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_the_page_runs_a_workflow(page: Front, renderer: str, tmp_path: Path) -> None:
    """Under either renderer a workflow loads with its values, is drawn, runs from the page, and its nodes have help."""
    page.set_renderer(renderer)
    page.load(GRAPH)
    prompt = page.to_api()
    assert prompt["1"]["inputs"] == {"width": 96, "height": 64, "batch_size": 1, "color": 0x204060}
    assert prompt["2"]["inputs"] == {"images": ["1", 0]}
    assert page.page.locator("[data-node-id]").count() == (2 if renderer == "vue" else 0)
    assert page.queue()["type"] == "execution_success"
    assert "EmptyImage" in page.open_help(1)
    assert "PreviewImage" in page.open_help(2) or "Preview Image" in page.open_help(2)
    assert page.screenshot(tmp_path / "page.png").stat().st_size > 10_000


def test_the_page_is_told_of_refusals_and_errors(page: Front) -> None:
    """A graph whose values do not validate comes back from the queue as refused, with the nodes that were."""
    page.load(GRAPH)
    page.page.evaluate("() => { app.graph.getNodeById(1).widgets[0].value = 0 }")
    end = page.queue()
    assert end["type"] == "refused"
    assert list(end["node_errors"]) == ["1"]


def test_own_errors_are_told_from_others(page: Front) -> None:
    """An error that names a file of the pack is ours, thrown or logged; the front-end's own are not."""
    page.page.evaluate("() => console.error(new Error('at /extensions/longlive/a.js'))")
    page.page.evaluate("() => { setTimeout(() => { throw new Error('in /extensions/longlive/b.js') }) }")
    page.page.evaluate("() => console.error('not ours')")
    page.page.wait_for_timeout(200)
    assert [error.text.split("/extensions/longlive/")[1][:4] for error in page.own_errors()] == ["a.js", "b.js"]
