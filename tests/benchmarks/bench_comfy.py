"""Films of LongLive Mini in a real ComfyUI, started over HTTP and from the canvas.

    COMFYUI_PATH=… COMFYUI_PYTHON=… python tests/benchmarks/bench_comfy.py [--quick]

Prints, for two films, the seconds until the first preview and until the end, the file's size and what the probe reads
in the frames; the time of ten cancels; and the memory of the server during a film of 5 minutes (20 seconds with
--quick) that Chromium queues from the canvas.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from threading import Event as Flag
from threading import Thread, Timer
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
package = ModuleType("longlive")
package.__path__ = [str(ROOT)]
sys.modules.setdefault("longlive", package)
sys.path.insert(0, str(ROOT / "tests"))

from comfy.browser import chromium, opened  # noqa: E402
from comfy.graphs import SCRIPT, film, film_frames, film_path  # noqa: E402
from comfy.host import Host, checkout, serve  # noqa: E402
from comfy.run import Event, Run  # noqa: E402
from longlive.longlive_core.evaluation.probe import read_frame  # noqa: E402
from longlive.longlive_core.types import FPS  # noqa: E402

TEMPLATE = ROOT / "workflows/LongLive 01 Text to film (Mini).json"
SET_SCRIPT = """(text) => {
    const script = app.graph.nodes.find((node) => node.type === "LongLiveShotScript")
    script.widgets.find((widget) => widget.name === "script").value = text
}"""
LINE = "Shot {} ({}s): a big red ring sways on the left in front of a striped navy wall"


def long_script(seconds: int) -> str:
    """A script of equal shots of 20 s."""
    return "\n".join(LINE.format(number, 20) for number in range(1, seconds // 20 + 1))


def two_films(host: Host) -> None:
    """Measures the first film after the start of the server, and a second one."""
    for name in ("first", "second"):
        run = host.run(film(SCRIPT, 21 if name == "first" else 22), 300)
        assert run.ok, run.error
        frames = film_frames(host, run)
        print(
            f"{name} film: {len(frames)} frames, first preview {run.first_preview:.2f} s, end {run.seconds:.2f} s "
            f"({len(frames) / run.seconds:.0f} fps), {film_path(host, run).stat().st_size / 1e3:.0f} kB"
        )
    half = len(frames) // 2
    for shot, part in enumerate((frames[8 : half - 8], frames[half + 8 :]), 1):
        readings = [read_frame(frame.numpy()) for frame in part[::8]]
        backgrounds, heroes = (
            Counter(r.background for r in readings),
            Counter(str(r.hero and r.hero.shape) for r in readings),
        )
        print(f"  shot {shot} has the backgrounds {dict(backgrounds)} and the heroes {dict(heroes)}")


def ten_cancels(host: Host) -> None:
    """Measures the seconds from an interrupt, at a random moment of a film, until the server confirms it."""
    delays, latencies = random.Random(3), list[float]()
    for index in range(10):
        sent: list[float] = []

        def interrupt(sent: list[float] = sent) -> None:
            sent.append(time.monotonic())
            host.interrupt()

        def on_event(_: Run, event: Event, sent: list[float] = sent) -> None:
            if event.type == "execution_interrupted":
                latencies.append(time.monotonic() - sent[0])

        Timer(delays.uniform(0.5, 4), interrupt).start()
        assert host.run(film(long_script(60), 200 + index), 120, on_event=on_event).interrupted
    listed = [round(latency, 3) for latency in sorted(latencies)]
    print(f"ten cancels: worst {max(latencies):.3f} s, median {median(latencies):.3f} s: {listed}")


def server_memory(host: Host, seconds: int, interval: float) -> None:
    """Queues a film of `seconds` from the canvas and measures the server's memory every `interval` seconds."""
    readings: list[tuple[float, float]] = []
    finished, began = Flag(), time.monotonic()

    def watch() -> None:
        while not finished.wait(interval):
            readings.append((time.monotonic() - began, host.rss() / 1e6))

    watcher = Thread(target=watch)
    with chromium() as browser, opened(browser, host) as front:
        front.load(json.loads(TEMPLATE.read_text()))
        front.page.evaluate(SET_SCRIPT, long_script(seconds))
        began = time.monotonic()
        watcher.start()
        try:
            end = front.queue(900)
        finally:
            finished.set()
            watcher.join()
    assert end["type"] == "execution_success", end
    took, frames = time.monotonic() - began, seconds * FPS
    values = [rss for _, rss in readings]
    print(f"{seconds} s film: {took:.1f} s, {frames / took:.0f} fps, {len(readings)} readings of memory")
    if len(readings) > 2:
        x, y = (sum(column) / len(readings) for column in zip(*readings, strict=True))
        slope = sum((t - x) * (rss - y) for t, rss in readings) / sum((t - x) ** 2 for t, _ in readings)
        print(f"  RSS min {min(values):.0f} MB, max {max(values):.0f} MB, slope {60 * slope:+.1f} MB a minute")
        print("  " + " ".join(f"{rss:.0f}" for rss in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a film of 20 seconds instead of 5 minutes")
    quick = parser.parse_args().quick
    folder = checkout()
    if folder is None:
        sys.exit("no ComfyUI was found: set COMFYUI_PATH to a checkout")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as base, serve(folder, Path(base)) as host:
        two_films(host)
        ten_cancels(host)
        server_memory(host, *((20, 0.5) if quick else (300, 10.0)))
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
