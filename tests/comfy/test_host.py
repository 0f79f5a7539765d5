"""The harness itself: the pack loads, and a prompt's events reach the test."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    """The server lists the nodes there are, and the pack's import left no complaint in the log."""
    assert "EmptyImage" in comfy.get("/object_info")
    log = comfy.log.read_text("utf-8")
    assert "custom_nodes/longlive" in log
    assert "IMPORT FAILED" not in log
    assert "LongLive could not load" not in log


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
