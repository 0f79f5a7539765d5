"""How long a decoded frame takes to the screen of LongLive Async Decode's player, in a real browser.

    COMFYUI_PATH=… COMFYUI_PYTHON=… python tests/benchmarks/bench_player.py [classic|vue]

Decoding is slowed to the pace of LongLive 5B, so that the player always waits for the newest frame. Each row of the
table is a statistic of 50 latent frames: `decoded to screen` is the time in ms from the end of a latent frame's
decoding in the server to the first of its video frames on the screen (requestVideoFrameCallback). Nothing is printed
unless every one of them was shown.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
package = ModuleType("longlive")
package.__path__ = [str(ROOT)]
sys.modules.setdefault("longlive", package)
sys.path.insert(0, str(ROOT / "tests"))

from comfy.browser import chromium, opened  # noqa: E402
from comfy.host import checkout, serve  # noqa: E402

SECONDS = 0.36  # for each latent frame, 4 video frames: 11 frames per second
COUNT = 50
FPS = 24
SCRIPT = "Shot 1 (10 blocks): a big red ring sways on the left in front of a plain forest wall"
# A node pack that slows decoding and notes when a latent frame is decoded.
SLOW = """
import sys, time
from pathlib import Path
from server import PromptServer

NODE_CLASS_MAPPINGS = {{}}
LOG = Path({log!r})

def slow(request):
    for name, module in list(sys.modules.items()):
        stream = getattr(module, "DecodeStream", None) if name.endswith("longlive_core.vae.stream") else None
        if stream is None or hasattr(stream, "slowed"):
            continue
        feed = stream.feed
        def slowed(self, latents, feed=feed):
            time.sleep({seconds})
            feed(self, latents)
            with LOG.open("a") as log:
                log.write(f"{{time.time()}}\\n")
        stream.feed, stream.slowed = slowed, True
    return request

PromptServer.instance.add_on_prompt_handler(slow)
"""
WATCH = """() => new Promise((resolve) => {
    const found = []
    const watch = () => {
        const video = document.querySelector(".longlive-player video")
        if (!video) return setTimeout(watch, 20)
        const shown = (now, { mediaTime }) => {
            found.push([mediaTime, (performance.timeOrigin + now) / 1000])
            video.requestVideoFrameCallback(shown)
        }
        video.requestVideoFrameCallback(shown)
    }
    watch()
    window.shown = found
    resolve()
})"""


def measure(renderer: str) -> list[float]:
    """The times in ms from decoded to screen of the latent frames of one film."""
    folder = checkout()
    assert folder is not None, "no ComfyUI: set COMFYUI_PATH to a checkout"
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        pack, log = base / "custom_nodes" / "slow", base / "decoded.txt"
        pack.mkdir(parents=True)
        (pack / "__init__.py").write_text(SLOW.format(log=str(log), seconds=SECONDS))
        with serve(folder, base, streams=True) as host, chromium() as browser, opened(browser, host) as front:
            front.set_renderer("vue" if renderer == "vue" else "classic")
            front.load(json.loads((ROOT / "workflows" / "LongLive 01 Text to film (Mini).json").read_text("utf-8")))
            write = """(text) => {
                const node = app.graph.nodes.find(({ comfyClass }) => comfyClass === "LongLiveShotScript")
                node.widgets.find(({ name }) => name === "script").value = text
            }"""
            front.page.evaluate(write, SCRIPT)
            front.page.evaluate(WATCH)
            assert front.queue(300)["type"] == "execution_success"
            front.page.wait_for_timeout(2000)
            shown = front.page.evaluate("() => window.shown")
        decoded = [float(line) for line in log.read_text().split()]
    times: list[float] = []
    # The first latent frames wait for the player to open.
    for latent, at in list(enumerate(decoded))[8 : 8 + COUNT]:
        first = (1 + 4 * (latent - 1)) / FPS
        times.append(1000 * (next(when for media, when in shown if media >= first - 0.5 / FPS) - at))
    assert len(times) == COUNT
    return times


def main() -> None:
    renderer = (sys.argv[1:] or ["classic"])[0]
    times = measure(renderer)
    print("| renderer | latent frames | median ms | worst ms |\n|---|---|---|---|")
    print(f"| {renderer} | {len(times)} | {median(times):.0f} | {max(times):.0f} |")


if __name__ == "__main__":
    main()
