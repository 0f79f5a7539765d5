"""Frames per second while the canvas is panned over a strip of 200 shots, in a real ComfyUI and both renderers.

    COMFYUI_PATH=… COMFYUI_PYTHON=… python tests/benchmarks/bench_pan.py [--shots 200] [--seconds 5]

The view moves at every frame that the browser draws. The arms are the six nodes of a film, as many nodes of ComfyUI in
their place, and an empty canvas; they take turns in one page. Nothing is printed unless the strip has all its shots.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from comfy.browser import Front, chromium, opened  # noqa: E402
from comfy.host import checkout, serve  # noqa: E402

TEXT = "a big red ring sways on the left in front of a striped navy wall"
OURS = ["Mini", "ShotScript", "SinkMemory", "EncodeShots", "StreamingSampler", "AsyncDecode"]
THEIRS = ["CheckpointLoaderSimple", "CLIPTextEncode", "CLIPTextEncode", "EmptyLatentImage", "KSampler", "VAEDecode"]
ARMS = {"six nodes of a film": [f"LongLive{name}" for name in OURS], "six of ComfyUI": THEIRS, "empty canvas": []}
ADD = """([types, script]) => {
    app.graph.clear()
    types.forEach((type, index) => {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
        node.pos = [(index % 3) * 480, Math.floor(index / 3) * 700]
        if (type === "LongLiveShotScript") node.widgets.find(({ name }) => name === "script").value = script
    })
    app.canvas.ds.scale = 0.5
    app.canvas.ds.offset = [100, 100]
}"""
PAN = """(seconds) => new Promise((resolve) => {
    const times = []
    const { ds } = app.canvas
    const step = (now) => {
        times.push(now)
        ds.offset[0] += 4 * (Math.floor(times.length / 60) % 2 ? -1 : 1)
        app.canvas.setDirty(true, true)
        if (now - times[0] < seconds * 1000) requestAnimationFrame(step)
        else resolve(times.slice(1).map((time, index) => time - times[index]))
    }
    requestAnimationFrame(step)
})"""
ROUNDS = 3


def pan(front: Front, nodes: list[str], shots: int, seconds: float) -> list[float]:
    """The milliseconds between the frames of one pan."""
    script = "".join(f"Shot {number} (4s): {TEXT}\n" for number in range(1, shots + 1))
    front.page.evaluate(ADD, [nodes, script])
    if "LongLiveShotScript" in nodes:
        front.page.wait_for_selector(f".ll-reel [aria-setsize='{shots}']")
    front.page.wait_for_timeout(1500)
    return front.page.evaluate(PAN, seconds)


def main() -> None:
    """Measures all arms in both renderers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=200, help="shots of the script (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a pan (default: %(default)s)")
    options = parser.parse_args()
    folder = checkout()
    if folder is None:
        sys.exit("no ComfyUI: set COMFYUI_PATH to a checkout")
    print("| renderer | canvas | frames per second | slowest frame ms |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as base, serve(folder, Path(base)) as host, chromium() as browser:
        for renderer in ("classic", "vue"):
            with opened(browser, host) as front:
                front.set_renderer(renderer)
                times: dict[str, list[float]] = {arm: [] for arm in ARMS}
                for arm in [*ARMS] * ROUNDS:
                    times[arm] += pan(front, ARMS[arm], options.shots, options.seconds)
            for arm, between in times.items():
                rate = 1000 * len(between) / sum(between)
                print(f"| {renderer} | {arm} | {rate:.1f} | {max(between):.0f} |", flush=True)


if __name__ == "__main__":
    main()
