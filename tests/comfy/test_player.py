"""The player in LongLive Async Decode, in a real page: it plays the film that is being made, and stays with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from longlive.longlive_core.video import read_video

from .browser import READY, Front, opened
from .host import ROOT, Host, Start

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.comfy, pytest.mark.slow]

RENDERERS = ["classic", "vue"]
LONG = """Shot 1 (40 blocks): a big red ring sways on the left in front of a plain forest wall
Shot 2 (40 blocks): a big red ring circles in the middle against a striped navy wall"""
SHORT = LONG.replace("40 blocks", "1 block")
LIMIT = 180_000
SEEDS = count(1000)

SET = """([kind, name, value]) => {
    const node = app.graph.nodes.find(({ comfyClass }) => comfyClass === kind)
    app.canvas.emitBeforeChange()
    node.widgets.find((widget) => widget.name === name).value = value
    app.canvas.emitAfterChange()
}"""
PLAYER = ".longlive-player"
VIDEO = "document.querySelector('.longlive-player video')"
STATE = "document.querySelector('.longlive-player')?.dataset.state"
BUFFERED = f"({VIDEO}.buffered.length ? {VIDEO}.buffered.end(0) : 0)"


@pytest.fixture(scope="module")
def streams(start: Start) -> Iterator[Host]:
    """A server whose policy lets pages stream films."""
    with start(streams=True) as host:
        yield host


@pytest.fixture(params=RENDERERS)
def front(request: pytest.FixtureRequest, browser: Browser, streams: Host) -> Iterator[Front]:
    """A page with LongLive Mini's workflow, in each renderer; nothing runs any more at the end."""
    with opened(browser, streams) as page:
        prepare(page, request.param)
        yield page
        streams.post("/queue", {"clear": True})
        streams.interrupt()
        assert page.own_errors() == []


def prepare(page: Front, renderer: str, script: str = LONG) -> None:
    page.set_renderer(renderer)  # type: ignore[arg-type]
    page.load(json.loads((ROOT / "workflows" / "LongLive 01 Text to film (Mini).json").read_text("utf-8")))
    page.page.evaluate(SET, ["LongLiveShotScript", "script", script])


def queue(page: Page) -> None:
    page.evaluate("async () => { await app.queuePrompt(0) }")


def other_seed(page: Page) -> None:
    """Makes the next film another one than all before, of which the server has the blocks."""
    page.evaluate(SET, ["LongLiveStreamingSampler", "seed", next(SEEDS)])


def wait(page: Page, condition: str) -> None:
    # By a timer: frames, at which Playwright looks otherwise, are seconds apart on a busy machine.
    page.wait_for_function(f"() => {condition}", timeout=LIMIT, polling=100)


def plays(page: Page, after: float = 0.5) -> None:
    """Waits until the film plays beyond a time, while it is being made."""
    wait(page, f"{STATE} === 'making' && {VIDEO}.currentTime > {after}")


def line(page: Page) -> str:
    return page.locator(f"{PLAYER} .longlive-line").inner_text()


def films(page: Page, host: Host) -> list[dict[str, Any]]:
    client = page.evaluate("() => window.comfyAPI.api.api.clientId")
    return host.get(f"/longlive/films?client={client}")


def test_a_film_plays_before_it_is_made(front: Front) -> None:
    """Its time advances while it is made; the line says shot, pace, time left and file; keys move in what exists."""
    page = front.page
    other_seed(page)
    queue(page)
    plays(page)
    said = r"shot 1 of 2 · [\d.]+ fps · \d+:\d\d left · LongLive_mini_\d+_\.mp4"
    assert re.fullmatch(said, line(page))
    (film,) = films(page, front.host)
    assert film["state"] == "making" and film["cuts"] == [pytest.approx(1277 / 24)]
    assert page.evaluate(f"() => {VIDEO}.currentSrc").startswith("blob:")
    # Paused, because on a busy machine a film has played on before a seek is seen.
    page.evaluate(f"() => {VIDEO}.pause()")
    page.locator(".longlive-scrub").focus()
    page.keyboard.press("Home")
    wait(page, f"{VIDEO}.currentTime === 0 && !{VIDEO}.seeking")


def test_a_finished_film_stays_and_is_cached(front: Front) -> None:
    """The finished film has its whole length and plays; queued again, the node is cached and its film stays."""
    page = front.page
    page.evaluate(SET, ["LongLiveShotScript", "script", SHORT])
    other_seed(page)
    assert front.queue(180)["type"] == "execution_success"
    wait(page, f"{STATE} === 'done' && Number.isFinite({VIDEO}.duration)")
    assert page.evaluate(f"() => {VIDEO}.duration") == pytest.approx(61 / 24, abs=0.03)
    assert re.fullmatch(r"LongLive_mini_\d+_\.mp4 · 2\.5 s", line(page))
    page.evaluate("""() => {
        window.cached = []
        app.api.addEventListener("execution_cached", ({ detail }) => window.cached.push(...detail.nodes))
    }""")
    assert front.queue(180)["type"] == "execution_success"
    assert set(front.to_api()) <= set(page.evaluate("() => window.cached"))
    assert page.evaluate(f"() => {STATE}") == "done"
    page.get_by_role("button", name="Open in Assets").click()
    wait(page, "app.extensionManager.sidebarTab.activeSidebarTabId === 'assets'")


def test_a_refreshed_page_goes_on(front: Front) -> None:
    """A page that is loaded again while a film is made finds it, from the server, and plays it."""
    page = front.page
    other_seed(page)
    queue(page)
    plays(page)
    # The front-end stores the workflow a moment after a change.
    page.wait_for_timeout(2000)
    page.reload()
    page.wait_for_function(READY, timeout=60_000)
    plays(page)


def test_another_tab_sees_nothing(front: Front, browser: Browser, streams: Host) -> None:
    """A page with the same workflow, whose workflow and node have the same ids, hears of no film of another page."""
    with opened(browser, streams) as other:
        prepare(other, "classic")
        other.page.evaluate("""() => {
            window.heard = []
            for (const type of ["longlive.film", "progress_text", "progress_state"])
                app.api.addEventListener(type, () => window.heard.push(type))
        }""")
        other_seed(front.page)
        queue(front.page)
        plays(front.page, 0.2)
        assert other.page.locator(PLAYER).count() == 0
        assert films(other.page, streams) == []
        assert other.page.evaluate("() => window.heard") == []
        assert other.own_errors() == []


def test_keep_this_much(front: Front) -> None:
    """The player's button ends the run; what was made stays a film that plays, says so, and the next run goes on."""
    page = front.page
    other_seed(page)
    queue(page)
    plays(page)
    page.get_by_role("button", name="Keep this much").click()
    wait(page, f"{STATE} === 'stopped'")
    (film,) = films(page, front.host)
    assert 0 < film["frames"] < film["total_frames"]
    assert re.fullmatch(r"\d:\d\d of 1:47 kept · Run goes on", line(page))
    assert len(read_video(front.host.base / "output" / film["subfolder"] / film["name"])) == film["frames"]
    wait(page, f"Math.abs({VIDEO}.duration - {film['frames'] / 24}) < 0.05")
    queue(page)
    wait(page, f"{STATE} === 'making' && {VIDEO}.currentTime > 0.2")
    (again,) = films(page, front.host)
    assert again["key"] == film["key"] and again["name"] != film["name"]


def test_an_undo_in_mid_run(front: Front) -> None:
    """Undo makes all nodes anew: the same film plays on in the new node, where it was."""
    page = front.page
    other_seed(page)
    queue(page)
    plays(page)
    page.evaluate(f"() => {{ window.before = {VIDEO}; window.node = app.graph.nodes.at(-1) }}")
    other_seed(page)
    page.wait_for_timeout(500)
    page.locator("canvas").first.focus()
    page.keyboard.press("Control+z")
    wait(page, "!app.graph.nodes.includes(window.node)")
    wait(page, f"{VIDEO} === window.before && {VIDEO}.offsetHeight > 0")
    at = page.evaluate(f"() => {VIDEO}.currentTime")
    plays(page, at + 0.3)


def test_what_cannot_be_streamed_shows_stills(page: Front) -> None:
    """Under the policy of a server without paid nodes the newest frames show while it runs, and then the film plays."""
    prepare(page, "classic", SHORT.replace("1 block", "2 blocks"))
    other_seed(page.page)
    queue(page.page)
    wait(page.page, "document.querySelector('.longlive-stage img')?.naturalWidth > 0")
    wait(page.page, f"{STATE} === 'done' && {VIDEO}.readyState > 1")
    assert page.page.locator(".longlive-stage img").is_hidden()
    assert page.page.evaluate(f"() => {VIDEO}.duration") == pytest.approx(125 / 24, abs=0.03)


def test_a_page_that_gets_no_events_asks_the_server(front: Front) -> None:
    """A film is stopped while the page gets no events any more: the player still says what is kept."""
    page = front.page
    other_seed(page)
    queue(page)
    plays(page, 0.1)
    page.evaluate("() => { app.api.dispatchEvent = () => true }")
    page.evaluate(f"() => document.querySelector('{PLAYER} .longlive-stop').click()")
    wait(page, f"{STATE} === 'stopped'")
    assert re.fullmatch(r"\d:\d\d of 1:47 kept · Run goes on", line(page))


def test_the_player_is_accessible(front: Front) -> None:
    """axe-core finds no serious fault in the player."""
    axe = ROOT / "tests" / "web" / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("no axe-core: run `npm install` in tests/web")
    page = front.page
    other_seed(page)
    queue(page)
    plays(page, 0.1)
    page.add_script_tag(path=axe)
    found = page.evaluate("async () => (await axe.run({ include: [['.longlive-frame']] })).violations")
    assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []
