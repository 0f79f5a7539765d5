"""Clicks and seconds of what creators do most, in a real ComfyUI, beside an earlier version of the pack.

    COMFYUI_PATH=… COMFYUI_PYTHON=… python tests/benchmarks/bench_clicks.py [--before FOLDER]

FOLDER is a checkout of version 8147f9d or older, which has no strip, no player and no takes that save themselves; what
it cannot do on the canvas has a dash. Every way is gone by mouse and keyboard in the front end, with LongLive Mini and
the script of the first template. Seconds count from the first click to the end of the run that it starts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from comfy.browser import Front, chromium, opened  # noqa: E402
from comfy.host import Host, checkout, serve  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

# The first template of this version and that of 8147f9d.
TEMPLATES = ("LongLive 01 Text to film (Mini)", "longlive_mini_text_to_film")
WAIT = 300_000


@dataclass
class Way:
    """What one way took."""

    clicks: int = 0
    keys: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        keys = f", {self.keys} keys" if self.keys else ""
        return f"{self.clicks} clicks{keys}, {self.seconds:.0f} s"


class Hands:
    """Clicks and types on a page, and counts."""

    def __init__(self, front: Front) -> None:
        self.page, self.way, self._began = front.page, Way(), perf_counter()

    def click(self, place: Locator) -> None:
        """Clicks once, whatever lies above on the page: a node may be partly outside the view."""
        self.way.clicks += 1
        place.first.evaluate("(element) => element.click()")

    def type(self, *keys: str) -> None:
        """Presses keys."""
        self.way.keys += len(keys)
        for key in keys:
            self.page.keyboard.press(key)

    def run(self) -> None:
        """Presses Run and waits for the end of the run."""
        self.page.evaluate("""() => {
            window.ended = new Promise((resolve) => ["execution_success", "execution_error"].forEach(
                (type) => app.api.addEventListener(type, () => resolve(type))))
        }""")
        self.click(self.page.get_by_test_id("queue-button").or_(self.page.get_by_role("button", name="Run")))
        assert self.page.evaluate("async () => await window.ended") == "execution_success"

    def done(self) -> Way:
        """The way up to now."""
        self.way.seconds = perf_counter() - self._began
        return self.way


def first_film(front: Front) -> Way:
    """From the open dialog of templates to the finished film."""
    dialog, hands = front.open_templates(), Hands(front)
    search = dialog.get_by_role("searchbox").or_(dialog.locator("input[type=text]"))
    hands.click(search)
    search.first.focus()
    hands.type(*"longlive")
    first, second = (dialog.get_by_test_id(f"template-workflow-{name}") for name in TEMPLATES)
    first.or_(second).first.wait_for(timeout=WAIT)
    hands.click(first.or_(second))
    front.page.wait_for_function(
        "() => app.graph.nodes.some(({ comfyClass }) => comfyClass === 'LongLiveShotScript')", timeout=WAIT
    )
    hands.run()
    return hands.done()


def reroll_on_the_strip(front: Front) -> Way:
    """Card, reroll, Run."""
    hands = Hands(front)
    hands.click(front.page.locator(".ll-card").nth(2))
    front.page.locator(".ll-film").focus()
    hands.type("d")
    front.page.locator(".ll-plan").wait_for(timeout=WAIT)
    hands.run()
    return hands.done()


def reroll_in_the_text(front: Front) -> Way:
    """The end of the line of shot 3, a seed, Run."""
    front.page.evaluate("""() => {
        app.canvas.ds.scale = 1
        app.canvas.centerOnNode(app.graph.nodes.find(({ comfyClass }) => comfyClass === "LongLiveShotScript"))
    }""")
    hands = Hands(front)
    area = front.page.locator("textarea:visible").first
    hands.click(area)
    area.focus()
    area.evaluate("""(text) => {
        const end = text.value.indexOf("\\n", text.value.indexOf("Shot 3"))
        text.setSelectionRange(end, end)
    }""")
    hands.type(*" @seed=7")
    hands.run()
    return hands.done()


def choose_a_version(front: Front) -> Way:
    """Card, versions, the first picture, Run."""
    hands = Hands(front)
    hands.click(front.page.locator(".ll-card").nth(2))
    front.page.locator('[data-tool="versions"]:enabled').wait_for(timeout=WAIT)
    hands.click(front.page.locator('[data-tool="versions"]'))
    front.page.locator(".ll-version").first.wait_for(timeout=WAIT)
    hands.click(front.page.locator(".ll-version"))
    front.page.wait_for_timeout(500)
    hands.run()
    return hands.done()


def find_in_the_tab(front: Front) -> Way:
    """The tab of takes, the newest take, its film."""
    hands = Hands(front)
    hands.click(front.page.locator(".longlive-takes-tab-button, [aria-label*='Takes']"))
    row = front.page.locator("[data-take]").first
    row.wait_for(timeout=WAIT)
    hands.click(row.locator(".longlive-take-head"))
    row.locator(".longlive-take-version").first.wait_for(timeout=WAIT)
    return hands.done()


def measure(browser: Browser, folder: Path, pack: Path, ways: dict[str, Callable[[Front], Way] | None]) -> list[str]:
    """The table's column of one version: what each way took, in the order of `ways`."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        results: list[str] = []
        with serve(folder, base, pack=pack, streams=True, keep=True) as host, opened(browser, host) as front:
            for way in ways.values():
                results.append("–" if way is None else str(way(front)))
            half_a_film(front, host)
            workflow = front.to_workflow()
        (base / "custom_nodes" / "longlive").unlink()
        with serve(folder, base, pack=pack, streams=True, keep=True) as host, opened(browser, host) as front:
            front.load(workflow)
            results.append(str(go_on(front)))
        return results


def half_a_film(front: Front, host: Host) -> None:
    """Kills the server at half of a new film."""
    front.page.evaluate("""() => {
        const node = app.graph.nodes.find(({ comfyClass }) => comfyClass === "LongLiveStreamingSampler")
        node.widgets.find(({ name }) => name === "seed").value = 77
        window.half = new Promise((resolve) => app.api.addEventListener("progress_state", ({ detail }) => {
            if (Object.values(detail.nodes).some(({ value, max }) => max > 10 && value > max / 2)) resolve()
        }))
        app.queuePrompt(0)
    }""")
    front.page.evaluate("async () => await window.half")
    host.process.kill()
    host.process.wait(30)


def go_on(front: Front) -> Way:
    """Run, on a server that was started again after it was killed."""
    hands = Hands(front)
    hands.run()
    return hands.done()


NOW = {
    "first film from a fresh page": first_film,
    "reroll shot 3": reroll_on_the_strip,
    "compare two versions and choose": choose_a_version,
    "find a film of yesterday": find_in_the_tab,
}
BEFORE = {**dict.fromkeys(NOW), "first film from a fresh page": first_film, "reroll shot 3": reroll_in_the_text}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    options = parser.parse_args()
    folder = checkout()
    if folder is None:
        sys.exit("no ComfyUI: set COMFYUI_PATH to a checkout")
    with chromium() as browser:
        now = measure(browser, folder, ROOT, NOW)
        was = ["–"] * len(now) if options.before is None else measure(browser, folder, options.before, BEFORE)
    print("| | before | now |\n|---|---|---|")
    for name, before, after in zip((*NOW, "go on after a crash at half of the film"), was, now, strict=True):
        print(f"| {name} | {before} | {after} |")


if __name__ == "__main__":
    main()
