"""App mode: the host's page without the graph, where a template shows its script, strip, player, seed and size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .browser import Front, opened
from .host import ROOT, Host
from .test_cards import SEEDS, TEXT, WIDGETS
from .test_strip import AXE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

TEMPLATES = ("LongLive 01 Text to film (Mini)", "LongLive 03 Storyboard, then the film (Mini)")
CONTROLS = ["script", "Shots of the film", "Film", "seed", "width", "height"]
SCRIPT = """Shot 1 (1 block): a big red ring sways on the left in front of a striped navy wall
Shot 2 (1 block): a big red ring bobs in the middle against a plain wine wall
"""
EDITED = "a big red ring circles at the top in front of a checked forest background"
LIMIT = 180_000
# The mode is the workflow's. The front-end greets a user who opens an app for the first time with a tour.
OPEN = """async ([workflow, app]) => {
    await window.app.extensionManager.setting.set("Comfy.TutorialCompleted", true)
    await window.app.loadGraphData({ ...workflow, extra: { ...workflow.extra, linearMode: app } })
}"""
LABELS = "labels => labels.map((label) => label.textContent.trim())"


class App:
    """A page in app mode."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.page = front.page
        self.controls = self.page.get_by_test_id("linear-widgets")
        self.strip = self.controls.locator(".longlive-strip")
        self.player = self.controls.locator(".longlive-player")
        self.output = self.page.get_by_test_id("linear-center-panel").locator("video")

    def open(self, template: str) -> None:
        """Open a template as an app, with a short script; the first time, end the tour that begins."""
        workflow = json.loads((ROOT / "workflows" / f"{template}.json").read_text("utf-8"))
        self.page.evaluate(OPEN, [workflow, True])
        self.page.evaluate(WIDGETS, [SCRIPT, 64, 5000 + next(SEEDS)])
        self.controls.wait_for(timeout=LIMIT)
        self.page.wait_for_timeout(1000)
        self.front.dismiss()

    def run(self) -> None:
        """Press Run of the app."""
        self.page.get_by_test_id("linear-run-button").get_by_role("button", name="Run").click()

    def card(self, number: int) -> Locator:
        """The card of a shot."""
        return self.strip.locator(f"[aria-posinset='{number}']")


@pytest.fixture(params=["classic", "vue"])
def app(request: pytest.FixtureRequest, browser: Browser, comfy: Host) -> Iterator[App]:
    """A page of each renderer, on the way into app mode: both lend it the elements of their widgets."""
    with opened(browser, comfy) as front:
        front.set_renderer(request.param)
        yield App(front)
        assert front.own_errors() == []


def test_a_film_is_made_in_app_mode(app: App) -> None:
    """Every control is there; the script is edited on the strip, Run makes the film, and the film is the output."""
    app.open(TEMPLATES[0])
    labels = app.controls.get_by_test_id("builder-widget-label")
    assert labels.evaluate_all(LABELS) == CONTROLS
    app.card(2).click(timeout=LIMIT)
    app.page.keyboard.press("Control+d")
    app.card(3).wait_for(timeout=LIMIT)
    app.page.keyboard.press("Enter")
    app.strip.locator(".ll-editor textarea").fill(EDITED)
    app.page.keyboard.press("Enter")
    app.page.wait_for_function(f"(line) => ({TEXT})().includes(line)", arg=EDITED, timeout=LIMIT)
    assert EDITED in app.controls.locator("textarea").first.input_value()
    if AXE.is_file():
        app.page.add_script_tag(path=AXE)
        faults = app.page.evaluate("async () => (await axe.run({ include: [['.longlive-strip']] })).violations")
        assert [fault["id"] for fault in faults if fault["impact"] in ("serious", "critical")] == []
    app.run()
    app.page.wait_for_function(
        "() => document.querySelector('.longlive-player')?.dataset.state === 'done'", timeout=LIMIT
    )
    app.output.first.wait_for(timeout=LIMIT)
    name = app.player.locator(".longlive-line").inner_text().split(" · ")[0]
    assert name in (app.output.first.get_attribute("src") or "")


def test_the_strip_fits_the_controls(app: App) -> None:
    """In the narrow column no button is cut off, and the player can be seen without scrolling."""
    app.open(TEMPLATES[1])
    labels = app.controls.get_by_test_id("builder-widget-label")
    assert labels.evaluate_all(LABELS) == CONTROLS
    app.card(1).wait_for(timeout=LIMIT)
    inside = """(strip) => {
        const { left, right } = strip.getBoundingClientRect()
        return [...strip.querySelectorAll(".ll-head button, .ll-tools button")].filter((button) => {
            const box = button.getBoundingClientRect()
            return box.width && (box.left < left || box.right > right)
        }).map((button) => button.title)
    }"""
    assert app.strip.evaluate(inside) == []
    frame, column = (part.bounding_box() for part in (app.controls.locator(".longlive-frame"), app.controls))
    assert frame and column and frame["y"] + frame["height"] <= column["y"] + column["height"]


def test_the_graph_has_its_strip_and_player_again(app: App) -> None:
    """Back in the graph, strip and player stand in their nodes."""
    app.open(TEMPLATES[0])
    app.card(1).wait_for(timeout=LIMIT)
    workflow = app.front.to_workflow()
    app.page.evaluate(OPEN, [workflow, False])
    for element in (".longlive-strip", ".longlive-frame"):
        app.page.locator(f"{element}:visible").wait_for(timeout=LIMIT)
    assert app.page.locator(".longlive-strip [role=option]").count() == 2
