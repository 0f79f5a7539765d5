"""LongLive Mini through a real ComfyUI, as a creator meets it: over HTTP alone.

    COMFYUI_PATH=… COMFYUI_PYTHON=… python tests/benchmarks/bench_comfy.py [--quick]

Prints seconds to the first preview and in all, the file's size, what the probe reads in it; ten cancels; and the
server's memory during a long film (5 minutes, with --quick 20 seconds) queued on the canvas in Chromium.
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

TEMPLATE = ROOT / "workflows/longlive_mini_text_to_film.json"
TYPE = """(text) => {
    const script = app.graph.nodes.find((node) => node.type === "LongLiveShotScript")
    script.widgets.find((widget) => widget.name === "script").value = text
}"""
LINE = "Shot {} ({}s): a big red ring sways on the left in front of a striped navy wall"


def long_script(seconds: int) -> str:
    return "\n".join(LINE.format(number, 20) for number in range(1, seconds // 20 + 1))


def one_film(host: Host) -> None:
    for name in ("first", "second"):
        run = host.run(film(SCRIPT, 21 if name == "first" else 22), 300)
        assert run.ok, run.error
        frames = film_frames(host, run)
        print(
            f"{name} film: {len(frames)} frames, first preview {run.first_preview:.2f} s, all {run.seconds:.2f} s "
            f"({len(frames) / run.seconds:.0f} fps), {film_path(host, run).stat().st_size / 1e3:.0f} kB"
        )
    half = len(frames) // 2
    for shot, part in enumerate((frames[8 : half - 8], frames[half + 8 :]), 1):
        seen = [read_frame(frame.numpy()) for frame in part[::8]]
        walls, heroes = Counter(r.background for r in seen), Counter(str(r.hero and r.hero.shape) for r in seen)
        print(f"  shot {shot} reads as {dict(walls)}, hero {dict(heroes)}")


def ten_cancels(host: Host) -> None:
    moments, took = random.Random(3), []
    for index in range(10):
        asked: list[float] = []

        def ask(asked: list[float] = asked) -> None:
            asked.append(time.monotonic())
            host.interrupt()

        def hear(_: Run, event: Event, asked: list[float] = asked) -> None:
            if event.type == "execution_interrupted":
                took.append(time.monotonic() - asked[0])

        Timer(moments.uniform(0.5, 4), ask).start()
        assert host.run(film(long_script(60), 200 + index), 120, on_event=hear).interrupted
    print(f"ten cancels: worst {max(took):.3f} s, median {median(took):.3f} s: {[round(t, 3) for t in sorted(took)]}")


def memory(host: Host, seconds: int, every: float) -> None:
    seen: list[tuple[float, float]] = []
    over, began = Flag(), time.monotonic()

    def watch() -> None:
        while not over.wait(every):
            seen.append((time.monotonic() - began, host.rss() / 1e6))

    watcher = Thread(target=watch)
    with chromium() as browser, opened(browser, host) as front:
        front.load(json.loads(TEMPLATE.read_text()))
        front.page.evaluate(TYPE, long_script(seconds))
        began = time.monotonic()
        watcher.start()
        try:
            end = front.queue(900)
        finally:
            over.set()
            watcher.join()
    assert end["type"] == "execution_success", end
    took, frames = time.monotonic() - began, seconds * 24
    values = [rss for _, rss in seen]
    print(f"{seconds} s film: {took:.1f} s, {frames / took:.0f} fps, {len(seen)} readings of memory")
    if len(seen) > 2:
        x, y = (sum(column) / len(seen) for column in zip(*seen, strict=True))
        slope = sum((t - x) * (rss - y) for t, rss in seen) / sum((t - x) ** 2 for t, _ in seen)
        print(f"  RSS min {min(values):.0f} MB, max {max(values):.0f} MB, slope {60 * slope:+.1f} MB a minute")
        print("  " + " ".join(f"{rss:.0f}" for rss in values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a film of 20 seconds in place of 5 minutes")
    quick = parser.parse_args().quick
    folder = checkout()
    if folder is None:
        sys.exit("no ComfyUI: set COMFYUI_PATH to a checkout")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as base, serve(folder, Path(base)) as host:
        one_film(host)
        ten_cancels(host)
        memory(host, *((20, 0.5) if quick else (300, 10.0)))
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
