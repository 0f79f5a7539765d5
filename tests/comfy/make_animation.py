"""Makes the animated picture at the head of README: the canvas, in the real front-end, while a film is made.

For developers; the tests do not run it:

    cd tests && COMFYUI_PATH=… COMFYUI_PYTHON=… python -m comfy.make_animation

The first template is opened in Nodes 2.0 and run. The page is recorded as it is drawn, in real time.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import conftest  # noqa: F401  (makes `longlive` importable)
from PIL import Image

from .browser import Front, chromium, opened
from .host import ROOT, checkout, serve

TEMPLATE = ROOT / "workflows" / "LongLive 01 Text to film (Mini).json"
PICTURE = ROOT / ".github" / "canvas.webp"
LIMIT = 3_000_000
VIEW, WIDTH = {"width": 1440, "height": 900}, 960
INTERVAL = 0.2  # seconds between pictures
REST = 3.0  # seconds that the finished film plays on
# The view holds the nodes that show something: script, strip and film.
FRAME = """async (kinds) => {
    const nodes = app.graph.nodes.filter(({ comfyClass }) => kinds.includes(comfyClass))
    const left = Math.min(...nodes.map(({ pos }) => pos[0])) - 20
    const top = Math.min(...nodes.map(({ pos }) => pos[1])) - 50
    const right = Math.max(...nodes.map(({ pos, size }) => pos[0] + size[0])) + 20
    const bottom = Math.max(...nodes.map(({ pos, size }) => pos[1] + size[1])) + 20
    const { ds, canvas } = app.canvas
    ds.scale = Math.min(innerWidth / (right - left), innerHeight / (bottom - top))
    ds.offset = [-left + (innerWidth / ds.scale - (right - left)) / 2, -top]
    app.canvas.deselectAll()
    app.canvas.setDirty(true, true)
    await new Promise((next) => setTimeout(next, 500))
}"""
KINDS = ["LongLiveShotScript", "LongLiveEncodeShots", "LongLiveSinkMemory", "LongLiveStreamingSampler"]
KINDS += ["LongLiveAsyncDecode"]


def main() -> None:
    """Records the run and writes the picture."""
    folder = checkout()
    if folder is None:
        raise SystemExit("set COMFYUI_PATH to a ComfyUI checkout")
    with (
        tempfile.TemporaryDirectory() as base,
        serve(folder, Path(base), keep=True, streams=True) as host,
        chromium() as browser,
        opened(browser, host) as front,
    ):
        front.page.set_viewport_size(VIEW)
        front.page.evaluate("() => app.extensionManager.command.execute('Workspace.ToggleFocusMode')")
        for setting in ("Comfy.Minimap.Visible", "Comfy.Graph.CanvasInfo", "Comfy.Graph.CanvasMenu"):
            front.page.evaluate("async (name) => { await app.extensionManager.setting.set(name, false) }", setting)
        front.set_renderer("vue")
        front.load(json.loads(TEMPLATE.read_text("utf-8")))
        front.page.evaluate(FRAME, KINDS)
        pictures = record(front)
    write(pictures)


def record(front: Front) -> list[tuple[float, Image.Image]]:
    """Runs the workflow; returns the pictures of the page and the seconds at which they were drawn."""
    pictures: list[tuple[float, Image.Image]] = []
    session = front.page.context.new_cdp_session(front.page)

    def keep(event: dict[str, Any]) -> None:
        session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})
        at = event["metadata"]["timestamp"]
        if not pictures or at - pictures[-1][0] >= INTERVAL:
            picture = Image.open(io.BytesIO(base64.b64decode(event["data"]))).convert("RGB")
            height = round(picture.height * WIDTH / picture.width)
            pictures.append((at, picture.resize((WIDTH, height), Image.Resampling.LANCZOS)))

    session.on("Page.screencastFrame", keep)
    session.send("Page.startScreencast", {"format": "png", "everyNthFrame": 1})
    end = front.queue(300)
    if end["type"] != "execution_success":
        raise RuntimeError(f"the film was not made: {end}")
    front.page.wait_for_timeout(1000 * REST)
    session.send("Page.stopScreencast")
    return pictures


def write(pictures: list[tuple[float, Image.Image]]) -> None:
    """Writes an animated WebP, at the best quality that keeps it below the limit."""
    images = [picture for _, picture in pictures]
    times = [round(1000 * (b - a)) for (a, _), (b, _) in pairwise(pictures)] + [1500]
    for quality in (80, 65, 50, 35):
        images[0].save(
            PICTURE, save_all=True, append_images=images[1:], duration=times, loop=0, quality=quality, method=4
        )
        if PICTURE.stat().st_size <= LIMIT:
            return
    raise RuntimeError(f"{PICTURE.name} is larger than {LIMIT} bytes at the lowest quality: record less")


if __name__ == "__main__":
    main()
